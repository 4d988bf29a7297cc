//! The addresses that the operator serves: it answers the kubelet's probes, whatever else connects.

use std::time::Duration;

use serde_json::json;
use testkit::loopback::get;
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    api::chart::{objects, of_kind},
    cluster::render_chart,
    world::World,
};

/// More than a response needs, and less than 400 idle connections need to time out, 64 at a time.
const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn s22_idle_connections_to_both_addresses_do_not_keep_the_probes_out() {
    let world = World::new("probes").await;
    let operator = world.operator().await;
    let (health, admin) = (operator.health_address(), operator.admin_address());
    let mut idle = Vec::new();
    for address in [health, admin] {
        for _ in 0..400 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
    }
    for path in ["/healthz", "/readyz"] {
        let (status, text) = get(health, path, LIMIT).await.unwrap();
        assert_eq!((status, text.as_str()), (200, "ok\n"), "{path}");
    }
    assert!(get(admin, "/metrics", LIMIT).await.unwrap().1.contains("tidings_leading"));
    for oldest in [0, 400] {
        assert_eq!(idle[oldest].read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn s22_the_probes_ask_the_address_of_health_which_serves_no_metrics() {
    let objects = objects(&render_chart("tidings", &[]).unwrap());
    let container = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "health"}));
    }
    assert!(container["ports"].as_array().unwrap().contains(&json!({"name": "health", "containerPort": 8081})));
    let world = World::new("probe-paths").await;
    let operator = world.operator().await;
    let (status, text) = get(operator.health_address(), "/metrics", LIMIT).await.unwrap();
    assert!(status == 404 && text.contains("--admin-addr"), "{status}: {text}");
    let (status, text) = get(operator.admin_address(), "/healthz", LIMIT).await.unwrap();
    assert!(status == 404 && text.contains("--health-addr"), "{status}: {text}");
}
