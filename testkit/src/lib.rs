//! Provides the environment of the tests, the benchmarks, the fault campaign and the demo of Tidings: a real control
//! plane, a real OAuth 2.0 token service and a real HTTPS receiver, all on loopback. All of them stop when the process
//! that started them ends, however it ends.
//!
//! The kit is independent of the operator: it is written from the documentation of the resources, the HTTP exchanges
//! and the command line, and never uses the operator's code.

// This is a test library: a broken invariant of the kit must stop the test immediately.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod chart;
pub mod control_plane;
pub mod endpoints;
pub mod error;
pub mod folder;
pub mod kstatus;
pub mod loopback;
pub mod operator;
pub mod pki;
pub mod process;
pub mod proxies;
pub mod stage;

mod background;
pub mod binaries;

pub use control_plane::{ControlPlane, Part};
pub use endpoints::{Behaviour, Client, Hydra, Keycloak, NameServer, RawServer, Receiver, TokenService};
pub use error::{Error, Result};
pub use operator::Operator;
pub use pki::{Authority, Identity};
pub use proxies::{ApiProxy, ForwardProxy, TcpProxy};
pub use stage::Stage;
