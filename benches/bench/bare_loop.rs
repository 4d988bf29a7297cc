//! A bare loop: it lists, POSTs and patches, and does nothing else: no watch, no queue, no rules, no second try. What
//! it loses beside bare patches, it loses to the POSTs and the lists.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use futures::{TryStreamExt, stream};
use kube::{Api, api::ListParams};
use reqwest::{Certificate, Client};
use serde_json::Value;
use tidings_api::NotificationStatus;

use crate::{
    api_server::{Pending, SELECTOR, notifications, outcome},
    objects::{self, CREATORS},
    receiver::CLIENT,
    stage::{Stage, Tenant},
};

/// Deliveries under way at once.
const AT_ONCE: usize = 32;
/// Notifications of one page of a list.
const PAGE: u32 = 64;

/// Creates a backlog, then delivers it; deliveries a second from the first POST to the last outcome written.
pub async fn drain(stage: &Stage, tenant: &Tenant, count: usize, status: &NotificationStatus) -> f64 {
    let manifests = (0..count).map(objects::manifest).collect();
    objects::create(&stage.creator, &tenant.namespace, manifests, CREATORS).await;
    stage.collect_garbage().await;
    let ca = Certificate::from_pem(stage.receiver.ca_pem().as_bytes()).unwrap();
    let http = Client::builder().tls_certs_only([ca]).http1_only().timeout(Duration::from_secs(15)).build().unwrap();
    let token = token(&http, stage.receiver.token_url()).await;
    let (webhook, first) = (stage.receiver.webhook(&tenant.namespace), OnceLock::new());
    let deliver = async |object: Pending| {
        first.get_or_init(Instant::now);
        let event = object.spec.event.get().to_owned();
        let post = http.post(&webhook).bearer_auth(&token).header("content-type", "application/cloudevents+json");
        let answer = post.body(event).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        objects::send(&tenant.client, outcome(&object, status)).await;
        Ok(())
    };
    pages(notifications(tenant.client.clone(), &tenant.namespace))
        .map_ok(&deliver)
        .try_buffer_unordered(AT_ONCE)
        .try_for_each(async |()| Ok(()))
        .await
        .unwrap();
    count as f64 / first.get().unwrap().elapsed().as_secs_f64()
}

async fn token(http: &Client, url: &str) -> String {
    let form = http.post(url).basic_auth(CLIENT.0, Some(CLIENT.1));
    let form = form.header("content-type", "application/x-www-form-urlencoded").body("grant_type=client_credentials");
    let answer = form.send().await.unwrap().bytes().await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

/// All that is unfinished, page by page.
fn pages(api: Api<Pending>) -> impl stream::Stream<Item = kube::Result<Pending>> {
    stream::try_unfold(Some(ListParams::default().fields(SELECTOR).limit(PAGE)), move |params| {
        let api = api.clone();
        async move {
            let Some(params) = params else { return Ok(None) };
            let list = api.list(&params).await?;
            let next = list.metadata.continue_.filter(|token| !token.is_empty());
            let next = next.map(|token| params.continue_token(&token));
            Ok::<_, kube::Error>(Some((stream::iter(list.items.into_iter().map(Ok)), next)))
        }
    })
    .try_flatten()
}
