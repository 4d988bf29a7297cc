//! The only way out: every outbound HTTP request of the operator goes through a client made here.
//!
//! [`policy`] decides whether an address may be dialled; [`client`] applies it to the address that is really dialled,
//! bounds what is read of an answer, and sorts failures.

mod client;
mod policy;
mod retry_after;

pub use client::{Answer, Client, Egress, SendError, TrustError};
pub use policy::{Cidr, CidrError, Policy};
pub use retry_after::retry_after;
