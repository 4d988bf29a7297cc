//! What makes the way to a server bad: byte by byte before any server, request by request before the API server.

mod api_proxy;
mod tcp_proxy;
mod upstream;

pub use api_proxy::{ApiProxy, Call, Late, Treatment};
pub use tcp_proxy::{Link, TcpProxy};
pub use upstream::Upstream;
