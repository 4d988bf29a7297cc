//! The servers that the three kinds of request go to, on loopback and under a name.

use testkit::{Authority, Client, Receiver, TokenService};
use tidings_delivery::egress::Egress;

use crate::{
    sending::{Sender, Way},
    token_sources::trusting,
};

/// A receiver and a token service whose certificates are for loopback and for one name.
pub struct Servers {
    pub authority: Authority,
    pub receiver: Receiver,
    pub tokens: TokenService,
    name: &'static str,
}

impl Servers {
    pub async fn start(name: &'static str) -> Self {
        let authority = Authority::new();
        let tls = authority.server_config(&[name]);
        let tokens = TokenService::start_with(tls.clone()).await.unwrap();
        tokens.register(Client::new("id", "secret"));
        let receiver = Receiver::start_with(tls, tokens.tokens()).await.unwrap();
        Self { authority, receiver, tokens, name }
    }

    /// The URL for requests of this kind, by address.
    pub fn url(&self, way: Way) -> String {
        match way {
            Way::Post | Way::Options => self.receiver.url("/"),
            Way::Token => self.tokens.url(),
        }
    }

    /// The same URL, by name.
    pub fn named(&self, way: Way) -> String {
        self.url(way).replace("127.0.0.1", self.name)
    }

    /// The port for requests of this kind.
    pub fn port(&self, way: Way) -> u16 {
        self.url(way).parse::<url::Url>().unwrap().port().unwrap()
    }

    /// Creates a sender that trusts the servers.
    pub async fn sender(&self, egress: Egress) -> Sender {
        Sender::over(egress.client("test", &trusting(&self.authority)).unwrap()).await
    }
}
