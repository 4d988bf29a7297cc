//! The only way out: every outbound HTTP request of the operator goes through a client made here.
//!
//! [`endpoint`](mod@endpoint) says which URLs may be sent to; [`policy`] decides which addresses may be dialled, for
//! [`host`]s that are allowed by name too; [`resolver`] applies it to the addresses that are really dialled; [`trust`],
//! [`roots`] and [`stores`] say who is believed at the other end; [`client`] sends and bounds what is read of an answer; [`error`] sorts
//! failures.

mod client;
mod endpoint;
mod error;
mod host;
mod policy;
mod resolver;
mod retry_after;
mod roots;
mod stores;
mod trust;

pub use client::{Answer, Client, Egress};
pub use endpoint::{InvalidEndpoint, endpoint};
pub use error::SendError;
pub use host::{HostPattern, HostPatternError};
pub use policy::{Cidr, CidrError, Policy};
pub use resolver::Lookup;
pub use retry_after::retry_after;
pub use roots::{NoRoots, load_public_roots};
pub use trust::{ClientIdentity, Fingerprint, IdentityFault, RootsFault, Trust, TrustError};
