//! The number of token requests of the whole operator: few, whatever the backlog, and separate for each tenant.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::{
    Behaviour, chart,
    endpoints::{Reply, TokenRequest},
};
use tokio::time::sleep;

use crate::world::{CLIENT, PATIENCE, World, condition, path};

const MINUTE: Duration = Duration::from_secs(60);
const BACKLOG: usize = 1000;

/// The requests to the token service at a path.
fn requests_at(world: &World, path: &str) -> Vec<TokenRequest> {
    let mut requests = world.tokens.requests();
    requests.retain(|request| request.path == path);
    requests
}

/// Waits until a minute has passed since the first request at each path, and counts the requests in that minute.
async fn requests_in_the_first_minute(world: &World, paths: &[&str]) -> Vec<usize> {
    let end = Instant::now() + MINUTE + 2 * PATIENCE;
    let over = |path: &&str| requests_at(world, path).first().is_some_and(|first| first.arrived.elapsed() > MINUTE);
    while !paths.iter().all(over) {
        assert!(Instant::now() < end, "no request at one of {paths:?}");
        sleep(Duration::from_millis(100)).await;
    }
    let count = |path: &&str| {
        let requests = requests_at(world, path);
        requests.iter().filter(|request| request.arrived - requests[0].arrived <= MINUTE).count()
    };
    paths.iter().map(count).collect()
}

#[tokio::test]
async fn a_thousand_pending_cause_at_most_six_token_requests_a_minute_in_an_outage_and_one_after_a_refusal() {
    let world = World::new("token-budgets").await;
    world.secret(CLIENT.1).await;
    let refusal = Reply::status(401).header("content-type", "application/json").body(r#"{"error":"invalid_client"}"#);
    for (name, behaviour) in
        [("trouble", Behaviour::status(503)), ("reset", Behaviour::reset()), ("refusing", Behaviour::reply(refusal))]
    {
        world.tokens.answer_always_at(&path(name), behaviour);
    }
    // The tokens are valid, but the webhook accepts none.
    world.receiver.answer_always(&path("unconvinced"), Behaviour::status(401));
    let names = ["trouble", "reset", "refusing", "unconvinced"];
    for name in names {
        let url = world.tokens.url_of(&path(name));
        world.subscriber(name, |spec| spec["tokenService"]["url"] = url.into()).await;
        world.create(name, name, BACKLOG).await;
    }
    let _operator = world.operator().await;

    let paths = names.map(path);
    let counts = requests_in_the_first_minute(&world, &paths.each_ref().map(String::as_str)).await;
    let counts: [usize; 4] = counts.try_into().unwrap();
    let [trouble, reset, refusing, unconvinced] = counts;
    assert!((2..=6).contains(&trouble) && (2..=6).contains(&reset), "{counts:?}");
    assert_eq!((refusing, unconvinced), (1, 2), "{counts:?}");

    let reason = async |name: &str| condition(&world.get("subscriber", name).await, "TokenAvailable")["reason"].clone();
    assert_eq!(reason("trouble").await, "TokenUnavailable");
    assert_eq!(reason("reset").await, "TokenUnavailable");
    assert_eq!(reason("refusing").await, "TokenRejected");
    assert_eq!(reason("unconvinced").await, "TokenIssued");
    for name in ["trouble", "reset", "refusing"] {
        assert!(world.receiver.requests_for(&path(name)).is_empty(), "{name}: no event is sent without a token");
    }
    let posts = world.posts(&path("unconvinced"));
    let used: HashSet<_> = posts.iter().map(|post| post.token().unwrap()).collect();
    assert_eq!(used.len(), 2, "both tokens were tried");
    assert!(posts.len() >= 10, "{} POSTs: expected many attempts with few tokens", posts.len());
    let pending = world.list("notifications").await;
    let untried = pending.iter().filter(|n| n["status"]["phase"] == "Pending" && n["status"]["attempts"] == 0);
    assert!(untried.count() >= 3 * BACKLOG, "a missing token spends no attempt");
}

#[tokio::test]
async fn s11_two_tenants_with_the_same_client_id_mean_two_token_fetches() {
    let (first, second) = (World::new("first").await, World::new("second").await);
    // One operator for both namespaces: the chart in the first namespace grants permissions in the second namespace too.
    chart::install(first.plane, &first.namespace, &[&first.namespace, &second.namespace]).await.unwrap();
    second
        .apply(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "test-ca"},
            "data": {"ca.crt": first.authority.ca_pem()},
        }))
        .await;
    // The same client at the same token service, with the same values in the Secrets.
    for tenant in [&first, &second] {
        tenant.secret(CLIENT.1).await;
        let change = |spec: &mut Value| {
            spec["webhook"]["url"] = first.receiver.url(&path(&tenant.namespace)).into();
            spec["tokenService"]["url"] = first.tokens.url().into();
        };
        tenant.subscriber("shop", change).await;
        tenant.notifications("n", "shop", 20).await;
    }
    let operator = first.start(&["--egress-allow-cidr", "127.0.0.0/8", "--watch-namespace", &second.namespace]).await;
    operator.ready(PATIENCE).await.unwrap();
    first.until_delivered(20).await;
    second.until_delivered(20).await;

    assert_eq!(first.tokens.requests_of(CLIENT.0).len(), 2);
    let tokens = |tenant: &World| -> HashSet<String> {
        let posts = first.posts(&path(&tenant.namespace));
        assert_eq!(posts.len(), 20);
        posts.iter().map(|post| post.token().unwrap().to_owned()).collect()
    };
    let (of_first, of_second) = (tokens(&first), tokens(&second));
    assert_eq!((of_first.len(), of_second.len()), (1, 1));
    assert_ne!(of_first, of_second);
}
