//! Egress: makes every outbound HTTP request of the operator.
//!
//! [`endpoint`](mod@endpoint) checks URLs. [`policy`] decides which addresses are allowed, with [`host`]s that are
//! allowed by name and names below the [`cluster_domain`]. [`dns`] looks up names, and [`resolver`] applies the policy
//! to the addresses that are connected to. [`trust`], [`roots`] and [`stores`] hold certificate authorities and client
//! certificates. [`client`] sends requests, directly or through the [`proxy`], and [`response`] limits what is read of a
//! response; [`common`] is what both ways share. [`reuse`] records which connections were reused, and [`observer`] reports what is
//! counted. [`error`] classifies failures, [`tls_fault`] those of TLS handshakes and [`proxy_fault`] those of the proxy.

mod client;
mod cluster_domain;
mod common;
mod dns;
mod endpoint;
mod error;
mod host;
mod observer;
mod policy;
mod proxy;
mod proxy_fault;
mod resolver;
mod response;
mod retry_after;
mod reuse;
mod roots;
mod stores;
mod tls_fault;
mod trust;
mod weak_map;

pub use client::{Client, Egress};
pub use cluster_domain::{ClusterDomain, ClusterDomainError};
pub use dns::{Dns, name_server};
pub use endpoint::{InvalidEndpoint, endpoint};
pub use error::SendError;
pub use host::{HostPattern, HostPatternError};
pub use observer::{ConnectResult, LookupResult, Observer, TokenRequestResult, ValidationResult};
pub use policy::{Cidr, CidrError, Nat64Prefix, Nat64PrefixError, Policy};
pub use proxy::{CredentialsFault, InvalidProxy, NoProxy, NoProxyError, Proxy, ProxySettings, ProxyUrlError};
pub use proxy_fault::ProxyFault;
pub use resolver::Lookup;
pub use response::Response;
pub use retry_after::retry_after;
pub use roots::{NoRoots, load_public_roots};
pub use stores::tls_config;
pub use tls_fault::{CertificateNames, TlsFault};
pub(crate) use trust::has_encrypted_key;
pub use trust::{Authorities, ClientIdentity, Fingerprint, IdentityFault, RootsFault, Trust, TrustError};
pub(crate) use weak_map::WeakMap;
