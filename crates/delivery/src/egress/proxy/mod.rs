//! The egress proxy: requests go through tunnels to the addresses that the egress policy allows.
//!
//! [`forward`] holds the settings of the proxy: [`url`] checks its URL, [`credentials`] reads the file with the
//! credentials, and [`no_proxy`] decides which hosts need no proxy. [`way`] decides between the proxy and a direct
//! connection, [`connector`] opens the connection with [`sockets`], [`tunnel`] requests a tunnel, and [`client`] sends
//! requests. [`wait`] records whether an exchange waits for the proxy.

mod client;
mod connector;
mod credentials;
mod forward;
mod no_proxy;
mod sockets;
mod tunnel;
mod url;
mod wait;
mod way;

pub(super) use self::{client::Tunnels, wait::ProxyWait};
pub use self::{
    credentials::CredentialsFault,
    forward::{InvalidProxy, Proxy, ProxySettings},
    no_proxy::{NoProxy, NoProxyError},
    url::ProxyUrlError,
};
