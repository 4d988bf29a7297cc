//! The life of a Notification: tokens, requests, outcomes, replay and retention.

mod client_authentication;
pub mod conformance;
mod connections;
mod edges;
mod field;
mod foreign_token_server;
pub mod gates;
mod headers;
pub mod keys;
mod lifecycle;
mod outcomes;
mod rejections;
mod replay;
mod retention;
mod rotations;
mod sdk;
pub mod service_accounts;
mod signatures;
mod size;
mod token_budgets;
mod token_encodings;
mod tokens;
