//! What the API server itself can do: creates, status patches and a watch, without any of the operator's work.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use tidings_api::NotificationStatus;

use crate::{
    api_server::{Pending, notifications, outcome},
    objects::{create, manifest, send},
    say::say,
    stage::Stage,
};

/// The numbers of concurrent requests to try; the best one counts.
pub const AT_ONCE: [usize; 3] = [16, 32, 64];

/// Finishes these with the status `status`, by the requests that the operator makes; returns how many a second.
pub async fn patch(client: &Client, created: &[Pending], status: &NotificationStatus, at_once: usize) -> f64 {
    let outcomes: Vec<_> = created.iter().map(|created| outcome(created, status)).collect();
    let begun = Instant::now();
    stream::iter(outcomes).map(|outcome| send(client, outcome)).buffer_unordered(at_once).for_each(async |_| ()).await;
    created.len() as f64 / begun.elapsed().as_secs_f64()
}

/// Requests under way at once.
#[derive(Clone, Copy)]
pub struct AtOnce {
    pub creates: usize,
    pub patches: usize,
}

/// What the API server can do.
#[derive(Clone, Copy)]
pub struct Bare {
    /// Creates a second.
    pub creates: f64,
    /// Status patches a second.
    pub patches: f64,
    /// Processor time of API server and etcd for a patch.
    pub patch_cpu: Duration,
}

/// Creates `count` objects in a new namespace, then patches them.
pub async fn run(stage: &Stage, namespace: &str, count: usize, status: &NotificationStatus, at_once: AtOnce) -> Bare {
    let tenant = stage.tenant(namespace).await;
    let manifests = (0..count).map(manifest).collect();
    stage.collect_garbage().await;
    let (creates, created) = create(&stage.creator, &tenant.namespace, manifests, at_once.creates).await;
    stage.collect_garbage().await;
    let before = stage.control_plane_cpu().await;
    let patches = patch(&tenant.client, &created, status, at_once.patches).await;
    let cpu = stage.control_plane_cpu().await - before;
    say(format!(
        "{creates:.0} bare creates/s, {} at once; {patches:.0} bare patches/s, {} at once",
        at_once.creates, at_once.patches
    ));
    Bare { creates, patches, patch_cpu: cpu / u32::try_from(count).unwrap() }
}

/// Sends, for each object that appears in the namespace, its name and when it was seen.
pub async fn watch(client: Client, namespace: String, seen: impl Fn(String, Duration)) {
    let api = notifications(client, &namespace);
    let list = api.list(&kube::api::ListParams::default().limit(1)).await.unwrap();
    let params = kube::api::WatchParams::default().timeout(290);
    let events = api.watch(&params, &list.metadata.resource_version.unwrap()).await.unwrap();
    let each = events.try_for_each(async |event| {
        if let kube::api::WatchEvent::Added(object) = event {
            seen(object.metadata.name.unwrap(), crate::receiver::now());
        }
        Ok(())
    });
    each.await.unwrap();
}
