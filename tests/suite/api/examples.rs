//! The API server accepts every example unchanged.

use crate::cluster::{cluster, files, namespace};

#[tokio::test]
async fn every_example_is_accepted_by_the_api_server() {
    let plane = cluster().await;
    let namespace = namespace(plane, "examples").await;
    for (name, manifest) in files("examples") {
        let applied = plane.admin().apply(&manifest, &["-n", &namespace, "--validate=strict"]).await;
        let applied = applied.unwrap_or_else(|error| panic!("examples/{name}: {error}"));
        assert!(applied.contains("notification.tidings.dev/"), "examples/{name} shows no Notification: {applied}");
    }
}
