//! How host names are resolved (S21): against a name server on loopback that can stay silent.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use testkit::{Authority, NameServer, RawServer, Receiver, endpoints::NameAnswer, folder::Folder};
use tidings_delivery::egress::{ClusterDomain, Dns, Egress, Policy, SendError, Trust};
use tokio::time::{Instant, sleep};

use crate::{
    sending::{PATIENCE, Sender, Way, allowing},
    token_sources::trusting,
    world::{CLIENT, World, condition},
};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An egress that asks `server` alone.
fn asking(server: &NameServer, policy: Policy) -> Egress {
    Egress::with_dns(policy, Dns::new(vec![server.address()], ClusterDomain::default()))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn url(host: &str) -> url::Url {
    format!("https://{host}/").parse().unwrap()
}

/// The different names that were queried so far.
fn asked(server: &NameServer) -> Vec<String> {
    let mut questions = server.questions();
    questions.sort();
    questions.dedup();
    questions
}

#[tokio::test]
async fn s21_names_that_no_name_server_answers_for_delay_no_other_namespace() {
    const SHARE: usize = 8;
    let authority = Authority::new();
    let webhook = RawServer::answering(
        authority.server_config(&["hooks.healthy.example"]),
        "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
    )
    .await
    .unwrap();
    let names = NameServer::start(|name| match name {
        "hooks.healthy.example" => NameAnswer::address(HOME),
        _ => NameAnswer::Silence,
    });
    let names = names.unwrap();
    let egress = asking(&names, allowing("127.0.0.1"));
    let hanging = Arc::new(Sender::over(egress.client("hanging", &Trust::default()).unwrap()).await);
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..20 * SHARE {
        let hanging = hanging.clone();
        waiting.spawn(async move { hanging.answer(Way::Options, &format!("https://{n}.hanging.example/")).await });
    }
    until("the share is never used up", || asked(&names).len() >= SHARE).await;
    let healthy = Sender::over(egress.client("healthy", &trusting(&authority)).unwrap()).await;
    let url = webhook.url("/").replace("127.0.0.1", "hooks.healthy.example");
    for _ in 0..10 {
        assert_eq!(healthy.answer(Way::Options, &url).await, Ok(()));
    }
    assert!(waiting.try_join_next().is_none(), "one of the others has ended: the healthy one waited");
    let hanging = asked(&names).iter().filter(|name| name.ends_with("hanging.example")).count();
    assert_eq!(hanging, SHARE, "one namespace queries more names at a time than its share");
}

#[tokio::test]
async fn s21_a_lookup_without_a_waiting_attempt_frees_its_slot() {
    let names = NameServer::start(|name| match name {
        "hooks.example" => NameAnswer::address(HOME),
        _ => NameAnswer::Silence,
    });
    let names = names.unwrap();
    let client = asking(&names, allowing("127.0.0.1")).client("test", &Trust::default()).unwrap();
    let mut looks: Vec<_> = (0..8)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.check(&url(&format!("{n}.hanging.example"))).await })
        })
        .collect();
    until("they all ask", || asked(&names).len() == looks.len()).await;
    let witness = looks.pop().unwrap();
    looks.iter().for_each(tokio::task::JoinHandle::abort);
    assert_eq!(client.check(&url("hooks.example")).await, Ok(()));
    assert!(asked(&names).contains(&"hooks.example".to_owned()));
    assert!(!witness.is_finished(), "it waited until others gave up");
}

#[tokio::test]
async fn s21_a_name_is_looked_up_once_however_many_wait_and_cached_for_its_ttl() {
    let names = NameServer::start(|name| match name {
        "hooks.example" => NameAnswer::Addresses(vec![HOME], 20),
        _ => NameAnswer::NoSuchName,
    });
    let names = names.unwrap();
    let client = asking(&names, allowing("127.0.0.1")).client("test", &Trust::default()).unwrap();
    let many = async |host: &str| {
        let url = url(host);
        join_all((0..100).map(|_| client.check(&url))).await
    };
    for _ in 0..3 {
        assert_eq!(many("hooks.example").await, vec![Ok(()); 100]);
    }
    assert_eq!(names.questions(), vec!["hooks.example"; 2], "IPv4 and IPv6");
    assert_eq!(many("none.example").await, vec![Err(SendError::Dns); 100]);
    assert_eq!(names.questions().len(), 4, "that there is none is remembered, too");
}

#[tokio::test]
async fn s21_a_name_goes_out_as_it_is_written_and_is_never_looked_for_elsewhere() {
    let names = NameServer::start(|_| NameAnswer::NoSuchName).unwrap();
    let hosts = [
        ("acme.dev", "acme.dev"),
        ("Hooks.Acme.DEV.", "hooks.acme.dev"),
        ("intranet", "intranet"),
        ("a.b.c.d.e.f.example.com", "a.b.c.d.e.f.example.com"),
        ("hooks.shop.svc", "hooks.shop.svc.cluster.local"),
        ("pay.shop.svc.", "pay.shop.svc.cluster.local"),
        ("post.shop.svc.cluster.local", "post.shop.svc.cluster.local"),
    ];
    let policy = Policy::default().allowing_hosts(vec!["*.svc".parse().unwrap(), "*.cluster.local".parse().unwrap()]);
    let client = asking(&names, policy).client("test", &Trust::default()).unwrap();
    for (host, question) in hosts {
        let before = names.questions().len();
        assert_eq!(client.check(&url(host)).await, Err(SendError::Dns), "{host}");
        assert_eq!(names.questions()[before..], [question, question], "{host}");
    }
}

#[tokio::test]
async fn s21_the_hosts_file_comes_before_the_name_servers_and_is_read_again() {
    let names = NameServer::start(|_| NameAnswer::NoSuchName).unwrap();
    let folder = Folder::new("hosts").unwrap();
    let hosts = folder.write("hosts", "127.0.0.1 localhost\n127.0.0.1 hooks.example.com\n").unwrap();
    let dns = |servers| Dns::new(servers, ClusterDomain::default()).with_files(folder.path().join("none"), &hosts);
    let client = |dns| Egress::with_dns(allowing("127.0.0.1"), dns).client("test", &Trust::default()).unwrap();
    let over = client(dns(vec![names.address()]));
    assert_eq!(over.check(&url("Hooks.Example.COM.")).await, Ok(()));
    assert!(names.questions().is_empty());
    assert_eq!(over.check(&url("more.example.com")).await, Err(SendError::Dns));
    folder.write("hosts", "127.0.0.1 more.example.com\n127.0.0.2 hooks.example.com\n").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while over.check(&url("more.example.com")).await.is_err() {
        assert!(Instant::now() < deadline, "the file is not read again");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(over.check(&url("hooks.example.com")).await, Err(SendError::Denied), "the other address");
    // Without a file that names one, there is no name server, and no attempt waits for one.
    let none = client(dns(Vec::new()));
    assert_eq!(none.check(&url("elsewhere.example.com")).now_or_never(), Some(Err(SendError::Dns)));
    assert_eq!(none.check(&url("more.example.com")).await, Ok(()));
}

#[tokio::test]
async fn s23_a_tenant_cannot_learn_whether_a_name_inside_the_cluster_exists() {
    let names = NameServer::start(|name| match name {
        "vault.infra.svc.cluster.local" => NameAnswer::address(Ipv4Addr::new(10, 0, 0, 9)),
        "public.infra.svc.cluster.local" => NameAnswer::address(Ipv4Addr::new(93, 184, 216, 34)),
        "hooks.shop.svc.cluster.local" => NameAnswer::address(HOME),
        "lost.infra.svc.cluster.local" => NameAnswer::Silence,
        _ => NameAnswer::NoSuchName,
    });
    let names = names.unwrap();
    for policy in [Policy::default(), allowing("127.0.0.0/8")] {
        let client = asking(&names, policy).client("test", &Trust::default()).unwrap();
        for host in ["vault.infra.svc", "none.infra.svc", "none.infra.svc.cluster.local", "public.infra.svc", "x.y.pod"]
        {
            assert_eq!(client.check(&url(host)).await, Err(SendError::Denied), "{host}");
        }
        assert_eq!(client.check(&url("none.example.com")).await, Err(SendError::Dns), "outside");
    }
    let client = asking(&names, allowing("127.0.0.0/8")).client("test", &Trust::default()).unwrap();
    assert_eq!(client.check(&url("hooks.shop.svc")).await, Ok(()), "its address is allowed");
    let by_name = Policy::default().allowing_hosts(vec!["*.infra.svc".parse().unwrap()]);
    let client = asking(&names, by_name).client("test", &Trust::default()).unwrap();
    assert_eq!(client.check(&url("vault.infra.svc")).await, Ok(()), "its name is allowed");
    assert_eq!(client.check(&url("none.infra.svc")).await, Err(SendError::Dns), "an administrator has named it");
}

#[tokio::test]
async fn s23_the_flags_of_the_operator_take_away_what_others_open() {
    let world = World::new("denied").await;
    let tls = world.authority.server_config(&["hooks.acme.example"]);
    let receiver = Receiver::start_with(tls, world.tokens.tokens()).await.unwrap();
    let names = NameServer::start(|name| match name {
        "hooks.acme.example" => NameAnswer::address(HOME),
        "denied.acme.example" => NameAnswer::address(Ipv4Addr::new(127, 0, 0, 2)),
        _ => NameAnswer::NoSuchName,
    });
    let names = names.unwrap();
    let (server, webhook) = (names.address().to_string(), receiver.url("/").parse::<url::Url>().unwrap());
    let ports = [webhook.port(), world.tokens.url().parse::<url::Url>().unwrap().port()];
    let ports = ports.map(|port| port.unwrap().to_string()).join(",");
    let open = ["--egress-allow-cidr", "127.0.0.0/8", "--egress-allow-host", "*.acme.example"];
    let closed = ["--egress-deny-cidr", "127.0.0.2/32", "--egress-allow-port", &ports, "--dns-server", &server];
    let operator = world.start(&[&open[..], &closed[..]].concat()).await;
    operator.ready(PATIENCE).await.unwrap();
    world.secret(CLIENT.1).await;
    let at = |host: &str, port: Option<u16>| {
        let mut url = webhook.clone();
        url.set_host(Some(host)).unwrap();
        url.set_port(port.or(webhook.port())).unwrap();
        String::from(url)
    };
    let cases = [
        ("open", at("hooks.acme.example", None), "Operational"),
        ("address", at("denied.acme.example", None), "EgressDenied"),
        ("literal", at("127.0.0.2", None), "EgressDenied"),
        ("port", at("hooks.acme.example", Some(1)), "EgressDenied"),
    ];
    for (name, url, _) in &cases {
        world.subscriber(name, |spec| spec["webhook"]["url"] = url.as_str().into()).await;
    }
    for (name, _, reason) in &cases {
        let subscriber = world.until_reason(name, reason).await;
        let message = condition(&subscriber, "Ready")["message"].as_str().unwrap().to_owned();
        assert!(!message.contains("127.0.0.2") || *name == "literal", "{name}: {message}");
    }
    assert!(names.questions().iter().all(|name| name.ends_with("acme.example")), "{:?}", names.questions());
}
