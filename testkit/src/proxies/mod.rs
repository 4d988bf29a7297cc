//! Proxies that inject network faults, for the bytes to any server and for single requests to the API server, and a forward
//! proxy for tunnels.

mod api_proxy;
mod forward_proxy;
mod tcp_proxy;
mod upstream;

pub use api_proxy::{ApiProxy, Call, Late, Treatment};
pub use forward_proxy::{Asked, ForwardProxy, Manner};
pub use tcp_proxy::{Link, TcpProxy};
pub use upstream::Upstream;
