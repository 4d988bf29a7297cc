//! The whole operator with Keycloak as the token service: every client authentication, its rotation and its refusals.
//!
//! `make keycloak` installs Keycloak and runs this test, which writes `docs/keycloak.md`. `make test` does not run it:
//! Keycloak needs Java, and a start takes a minute.

// Tests stop at the first broken expectation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accepted;
mod gateway;
mod refused;
mod report;
mod shop;

// What this test shares with the suite, which uses more of it.
#[allow(dead_code)]
#[path = "../suite/cluster.rs"]
mod cluster;
#[allow(dead_code)]
#[path = "../suite/delivery/keys.rs"]
mod keys;
#[allow(dead_code)]
#[path = "../suite/world.rs"]
mod world;

use report::Report;
use shop::Shop;

#[tokio::test]
async fn events_arrive_with_tokens_of_keycloak_and_refusals_say_what_to_do() {
    let shop = Shop::new().await;
    let _operator = shop.world.operator().await;
    let mut report = Report::default();
    accepted::every_client_authentication_delivers_also_after_a_rotation(&shop, &mut report).await;
    accepted::a_target_of_the_request_does_not_change_the_audience(&shop, &mut report).await;
    refused::every_refusal_says_what_to_check(&shop, &mut report).await;
    report.write(shop.keycloak.version());
}
