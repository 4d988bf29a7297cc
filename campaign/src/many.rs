//! More Subscribers than a page of a listing holds.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::client::{ApiClient, until};
use crate::spaces;
use crate::webhooks::subscriber;

/// Lists come in pages of 500.
pub(crate) const COUNT: u64 = 600;
/// The first of them get Notifications.
pub(crate) const BUSY: u64 = 6;
/// What they are, in a path.
pub(crate) const KIND: &str = "subscribers";

/// The name of one of them.
pub(crate) fn name(number: u64) -> String {
    format!("many-{number:03}")
}

/// Creates all of them, for a webhook and a token service at these URLs.
pub(crate) async fn create(client: &Arc<ApiClient>, webhook: &str, token: &str) {
    let mut creating = JoinSet::new();
    for first in 0..8 {
        let (client, webhook, token) = (Arc::clone(client), webhook.to_owned(), token.to_owned());
        creating.spawn(async move {
            for number in (first..COUNT).step_by(8) {
                let object = subscriber(&name(number), &webhook, &token);
                until(&[201, 409], || client.create(spaces::MANY, KIND, &object)).await;
            }
        });
    }
    creating.join_all().await;
}
