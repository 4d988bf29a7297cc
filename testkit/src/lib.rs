//! What the demo and the tests of Tidings run against: a real control plane, a real OAuth 2.0 token service and a real
//! HTTPS receiver, all on loopback and all gone when the process that started them ends, however it ends.
//!
//! The kit is an independent witness: it knows the resources, the HTTP exchanges and the command line of the operator
//! from their documents, and never uses the operator's code.

// A test library: a broken invariant of the kit itself should stop the test at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod api_proxy;
pub mod audit;

pub mod chaos;
pub mod chart;
pub mod control_plane;
pub mod error;
pub mod exchange;
pub mod folder;
pub mod https;
pub mod hydra;
pub mod kubectl;
pub mod loopback;
pub mod name_server;
pub mod operator;
pub mod pki;
pub mod process;
pub mod raw;
pub mod receiver;
pub mod script;
pub mod tcp_proxy;
pub mod token_book;
pub mod token_service;

mod background;
mod binaries;
mod programs;
mod token_endpoint;
mod token_request;
mod upstream;

pub use api_proxy::ApiProxy;
pub use control_plane::{ControlPlane, Part};
pub use error::{Error, Result};
pub use hydra::Hydra;
pub use name_server::NameServer;
pub use operator::Operator;
pub use pki::{Authority, Identity};
pub use raw::RawServer;
pub use receiver::Receiver;
pub use script::Behaviour;
pub use tcp_proxy::TcpProxy;
pub use token_service::{Client, TokenService};
