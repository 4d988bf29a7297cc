//! Access to the API server: clients, requests with deadlines, patches, paged lists, permissions, tokens of ServiceAccounts.

pub mod call;
mod client;
pub mod pager;
pub mod patch;
pub mod permission;
mod single_try;
pub mod token_request;

pub use client::{bounded, reader, single_try, writer};
pub use single_try::SingleTry;
