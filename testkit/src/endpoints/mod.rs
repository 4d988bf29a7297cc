//! The servers that the operator sends requests to: a webhook, token services, a name server, and a server of raw
//! bytes.

mod exchange;
mod https;
mod hydra;
mod keycloak;
mod name_server;
mod raw;
mod receiver;
mod script;
mod token_book;
mod token_client;
mod token_endpoint;
mod token_request;
mod token_review;
mod token_service;

pub use exchange::{Answer, Reply, Request};
pub use https::{Endpoint, HttpsServer};
pub use hydra::Hydra;
pub use keycloak::{Keycloak, KeycloakIntrospection};
pub use name_server::{NameAnswer, NameServer};
pub use raw::{RawServer, read_request};
pub use receiver::{Received, Receiver};
pub use script::Behaviour;
pub use token_book::{Grant, TokenBook};
pub use token_client::{AuthMethod, Client};
pub use token_request::{Fields, TokenRequest};
pub use token_service::TokenService;
