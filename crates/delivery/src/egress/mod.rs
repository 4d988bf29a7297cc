//! The only way out: every outbound HTTP request of the operator goes through a client made here.
//!
//! [`endpoint`](mod@endpoint) says which URLs may be sent to; [`policy`] decides which addresses may be dialled, for
//! [`host`]s that are allowed by name too and names below the [`cluster_domain`]; [`dns`] finds the addresses of names, and
//! [`resolver`] applies the policy to those that are really dialled; [`trust`], [`roots`] and [`stores`] say who is
//! believed at the other end; [`client`] sends and bounds what is read of an answer; [`reuse`] notes which connections were kept; [`error`] sorts
//! failures.

mod client;
mod cluster_domain;
mod dns;
mod endpoint;
mod error;
mod host;
mod policy;
mod resolver;
mod retry_after;
mod reuse;
mod roots;
mod stores;
mod trust;
mod weak_map;

pub use client::{Client, Egress, Response};
pub use cluster_domain::{ClusterDomain, ClusterDomainError};
pub use dns::{Dns, name_server};
pub use endpoint::{InvalidEndpoint, endpoint};
pub use error::SendError;
pub use host::{HostPattern, HostPatternError};
pub use policy::{Cidr, CidrError, Nat64Prefix, Nat64PrefixError, Policy};
pub use resolver::Lookup;
pub use retry_after::retry_after;
pub use roots::{NoRoots, load_public_roots};
pub use trust::{ClientIdentity, Fingerprint, IdentityFault, RootsFault, Trust, TrustError};
pub(crate) use weak_map::WeakMap;
