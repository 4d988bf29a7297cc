//! The egress proxy: requests go through it to the addresses that the egress policy allows, and its failures are named.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use serde_json::json;
use testkit::{Authority, ForwardProxy, RawServer, Receiver, endpoints::read_request, folder::Folder, proxies::Manner};
use tidings_api::AttemptReason;
use tidings_delivery::{
    egress::{Egress, Lookup, NoProxy, Policy, Proxy, ProxySettings},
    webhook::Verdict,
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep},
};
use tokio_rustls::server::TlsStream;

use crate::{
    security::{canary, servers::Servers},
    sending::{PATIENCE, Sender, WAYS, Way, allowing},
    token_sources::trusting,
    world::{CLIENT, World, binary, condition},
};

/// A name with a public address, and a name that has none.
const HOST: &str = "hooks.example.com";
const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);
const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);

/// The addresses of names, and how often they were looked up.
#[derive(Debug, Default)]
struct Names {
    addresses: Mutex<HashMap<String, Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Names {
    fn of(names: &[(&str, &[Ipv4Addr])]) -> Arc<Self> {
        let addresses = names.iter().map(|(name, addresses)| {
            ((*name).to_owned(), addresses.iter().copied().map(IpAddr::V4).collect::<Vec<_>>())
        });
        Arc::new(Self { addresses: Mutex::new(addresses.collect()), asked: AtomicUsize::new(0) })
    }
}

impl Lookup for Names {
    fn lookup(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let found = self.addresses.lock().unwrap().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into());
        Box::pin(async { found })
    }
}

/// Creates a sender that reaches the servers through this proxy, with this policy and these names.
async fn sender_to(servers: &Servers, policy: Policy, names: &Arc<Names>, proxy: Proxy) -> Sender {
    servers.sender(Egress::with_lookup(policy, names.clone()).through(proxy)).await
}

fn settings(proxy: &ForwardProxy) -> ProxySettings {
    ProxySettings { url: proxy.url(), ..ProxySettings::default() }
}

fn configured(settings: ProxySettings) -> Proxy {
    Proxy::configured(settings).unwrap().unwrap()
}

fn plain(proxy: &ForwardProxy) -> Proxy {
    configured(settings(proxy))
}

fn without(proxy: &ForwardProxy, hosts: &[&str]) -> Proxy {
    let no_proxy = hosts.iter().map(|host| host.parse::<NoProxy>().unwrap()).collect();
    configured(ProxySettings { no_proxy, ..settings(proxy) })
}

#[tokio::test]
async fn every_request_goes_through_the_proxy_to_the_address_and_tls_to_the_name() {
    let servers = Servers::start(HOST).await;
    let of_proxy = Authority::new();
    let folder = Folder::new("proxy").unwrap();
    let ca_file = folder.write("ca.pem", of_proxy.ca_pem()).unwrap();
    for tls in [None, Some(of_proxy.server_config(&[]))] {
        let proxy = ForwardProxy::start(tls.clone()).await.unwrap();
        proxy.lead(&PUBLIC.to_string(), Ipv4Addr::LOCALHOST);
        let names = Names::of(&[(HOST, &[PUBLIC])]);
        let ca_file = tls.is_some().then(|| ca_file.clone());
        let through = configured(ProxySettings { ca_file, ..settings(&proxy) });
        let sender = sender_to(&servers, Policy::default(), &names, through).await;
        for way in WAYS {
            let before = proxy.targets().len();
            assert_eq!(sender.answer(way, &servers.named(way)).await, Ok(()), "{way:?}");
            let targets = proxy.targets();
            // OPTIONS reuses the connection of the POST.
            assert!(targets.len() > before || way == Way::Options, "{way:?}: {targets:?}");
            assert!(targets.contains(&format!("{PUBLIC}:{}", servers.port(way))), "{way:?}: {targets:?}");
        }
        assert!(proxy.asked().iter().all(|asked| asked.opened && !asked.head.contains(HOST)), "{:?}", proxy.asked());
    }
}

#[tokio::test]
async fn a_request_through_the_proxy_has_the_lines_of_a_direct_request() {
    let authority = Authority::new();
    let (server, mut received) = RawServer::recording(authority.server_config(&[])).await.unwrap();
    let [direct, proxied] = Sender::both(allowing("127.0.0.1"), &trusting(&authority)).await;
    for way in WAYS {
        let mut of_both = Vec::new();
        for sender in [&direct, &proxied] {
            let _ = sender.answer(way, &server.url("/events?a=b")).await;
            let request = received.recv().await.unwrap();
            assert!(request.contains("\r\nAccept-Encoding: identity\r\n"), "{way:?}: {request}");
            // Each sender has a token of its own.
            let is_same = |line: &&str| !line.starts_with("Authorization: Bearer ");
            of_both.push(request.lines().filter(is_same).map(str::to_owned).collect::<Vec<_>>());
        }
        assert_eq!(of_both[0], of_both[1], "{way:?}");
    }
    proxied.assert_proxied(WAYS.len());
}

#[tokio::test]
async fn s04_the_proxy_gets_no_request_for_an_address_that_the_policy_denies() {
    let servers = Servers::start(HOST).await;
    let proxy = ForwardProxy::start(None).await.unwrap();
    let names = Names::of(&[(HOST, &[PRIVATE]), ("both.example.com", &[PRIVATE, PUBLIC]), ("a.b.svc", &[PUBLIC])]);
    proxy.lead(&PUBLIC.to_string(), Ipv4Addr::LOCALHOST);
    let sender = sender_to(&servers, Policy::default(), &names, plain(&proxy)).await;
    for url in ["https://hooks.example.com/", "https://127.0.0.1/", "https://[::ffff:10.1.2.3]/", "https://a.b.svc/"] {
        for way in WAYS {
            assert_eq!(sender.answer(way, url).await, Err(AttemptReason::EgressDenied), "{way:?} {url}");
        }
        assert!(sender.http.check(&url.parse().unwrap()).await.is_err(), "{url}");
    }
    let ports = sender_to(&servers, Policy::default().allowing_ports(vec![443]), &names, plain(&proxy)).await;
    assert_eq!(ports.answer(Way::Post, "https://both.example.com:22/").await, Err(AttemptReason::EgressDenied));
    assert_eq!(proxy.connections(), 0, "{:?}", proxy.targets());
    // Of several addresses, the proxy connects to the allowed one alone.
    let url = servers.url(Way::Post).replace("127.0.0.1", "both.example.com");
    assert_eq!(
        sender.answer(Way::Post, &url).await,
        Err(AttemptReason::TLSFailed),
        "the name is not in the certificate"
    );
    assert_eq!(proxy.targets(), [format!("{PUBLIC}:{}", servers.port(Way::Post))]);
}

#[tokio::test]
async fn the_next_address_is_tried_when_the_proxy_cannot_connect_to_the_first() {
    let servers = Servers::start(HOST).await;
    let proxy = ForwardProxy::start(None).await.unwrap();
    let other = Ipv4Addr::new(93, 184, 216, 35);
    proxy.lead(&other.to_string(), Ipv4Addr::LOCALHOST);
    let names = Names::of(&[(HOST, &[PUBLIC, other])]);
    let sender = sender_to(&servers, Policy::default(), &names, plain(&proxy)).await;
    assert_eq!(sender.answer(Way::Post, &servers.named(Way::Post)).await, Ok(()));
    let port = servers.port(Way::Post);
    assert_eq!(proxy.targets(), [format!("{PUBLIC}:{port}"), format!("{other}:{port}")]);
}

#[tokio::test]
async fn a_proxy_that_refuses_or_breaks_is_named_with_its_status_and_its_answer_is_bounded() {
    let servers = Servers::start(HOST).await;
    let proxy = ForwardProxy::start(None).await.unwrap();
    let sender = sender_to(&servers, allowing("127.0.0.1"), &Names::of(&[]), plain(&proxy)).await;
    let answer = |text: &str| Manner::Answer(text.as_bytes().to_vec());
    let endless = [b"HTTP/1.1 200 OK\r\n".as_slice(), "X: y\r\n".repeat(1 << 20).as_bytes()].concat();
    let cases = [
        (
            answer("HTTP/1.1 403 Forbidden\r\nContent-Length: 1000000\r\n\r\n"),
            "refused to connect to the host (status 403)",
        ),
        (
            answer("HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1/\r\n\r\n"),
            "refused to connect to the host (status 302)",
        ),
        (answer("HTTP/1.1 502 Bad Gateway\r\n\r\n"), "could not connect to the host (status 502)"),
        (answer("HTTP/1.1 407 No\r\n\r\n"), "requires credentials (status 407)"),
        (answer("220 mail.example.com ESMTP\r\n"), "its response is not HTTP"),
        (Manner::Answer(endless), "its response is not HTTP"),
        (Manner::Close, "closed the connection"),
    ];
    for (manner, expected) in cases {
        proxy.treat(manner);
        for way in WAYS {
            let message = sender.message(way, &servers.url(way)).await;
            assert!(message.contains("egress proxy: the proxy") && message.contains(expected), "{way:?}: {message}");
            assert_eq!(sender.answer(way, &servers.url(way)).await, Err(AttemptReason::ProxyFailed), "{way:?}");
        }
    }
    let url = proxy.url();
    drop(proxy);
    let gone = configured(settings_at(&url));
    let sender = sender_to(&servers, allowing("127.0.0.1"), &Names::of(&[]), gone).await;
    let message = sender.message(Way::Post, &servers.url(Way::Post)).await;
    assert!(message.contains("cannot connect to the proxy"), "{message}");
    let nameless = configured(settings_at("http://proxy.example.com:3128"));
    let sender = sender_to(&servers, allowing("127.0.0.1"), &Names::of(&[]), nameless).await;
    let message = sender.message(Way::Post, &servers.url(Way::Post)).await;
    assert!(message.contains("the proxy's host name does not resolve"), "{message}");
    let stranger = ForwardProxy::start(Some(Authority::new().server_config(&[]))).await.unwrap();
    let sender = sender_to(&servers, allowing("127.0.0.1"), &Names::of(&[]), plain(&stranger)).await;
    let message = sender.message(Way::Post, &servers.url(Way::Post)).await;
    assert!(message.contains("the TLS handshake with the proxy failed"), "{message}");
    assert!(stranger.asked().is_empty());
    assert!(servers.receiver.requests().is_empty() && servers.tokens.requests().is_empty());
}

fn settings_at(url: &str) -> ProxySettings {
    ProxySettings { url: url.into(), ..ProxySettings::default() }
}

#[tokio::test]
async fn a_proxy_that_hangs_ends_with_the_attempt_and_is_named() {
    let servers = Servers::start(HOST).await;
    let proxy = ForwardProxy::start(None).await.unwrap();
    proxy.treat(Manner::Hang);
    let sender = sender_to(&servers, allowing("127.0.0.1"), &Names::of(&[]), plain(&proxy)).await;
    let url = servers.url(Way::Post);
    let began = Instant::now();
    let outcome = sender.post(&url, Duration::from_secs(1)).await;
    assert_eq!(outcome.reason, AttemptReason::ProxyFailed);
    assert!(outcome.message.contains("the proxy did not open a connection to the host in time"), "{}", outcome.message);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Without an attempt that ends it, the connection ends after ten seconds.
    let outcome = sender.post(&url, Duration::from_secs(60)).await;
    assert_eq!(outcome.reason, AttemptReason::ProxyFailed);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    // A server that hangs behind the proxy is not the proxy's failure.
    proxy.treat(Manner::Open);
    let silent = RawServer::tls(servers.authority.server_config(&[]), async |mut stream: TlsStream<TcpStream>| {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    });
    let silent = silent.await.unwrap();
    assert_eq!(sender.post(&silent.url("/"), Duration::from_secs(2)).await.reason, AttemptReason::Timeout);
}

#[tokio::test]
async fn credentials_are_sent_to_the_proxy_alone_and_a_corrected_file_needs_no_restart() {
    let servers = Servers::start(HOST).await;
    let proxy = ForwardProxy::start(None).await.unwrap();
    proxy.require("tidings:right");
    let folder = Folder::new("proxy").unwrap();
    let file = folder.write("credentials", "tidings:wrong\n").unwrap();
    let settings = ProxySettings { credentials_file: Some(file.clone()), ..settings(&proxy) };
    let sender = sender_to(&servers, allowing("127.0.0.1"), &Names::of(&[]), configured(settings)).await;
    let url = servers.url(Way::Post);
    let message = sender.message(Way::Post, &url).await;
    assert!(message.contains("rejected the operator's credentials (status 407)"), "{message}");
    std::fs::remove_file(&file).unwrap();
    let message = sender.message(Way::Post, &url).await;
    assert!(message.contains("--egress-proxy-credentials-file names cannot be read"), "{message}");
    folder.write("credentials", "tidings:right\n").unwrap();
    for way in WAYS {
        assert_eq!(sender.answer(way, &servers.url(way)).await, Ok(()), "{way:?}");
    }
    for request in servers.receiver.requests() {
        assert_eq!(request.header("proxy-authorization"), None);
    }
}

#[tokio::test]
async fn hosts_without_a_proxy_are_connected_to_directly_and_still_judged() {
    let servers = Servers::start(HOST).await;
    let names = || Names::of(&[(HOST, &[Ipv4Addr::LOCALHOST]), ("other.example.org", &[Ipv4Addr::LOCALHOST])]);
    let port = servers.port(Way::Post);
    let cases = [
        ("example.com", servers.named(Way::Post), true),
        (".example.com", servers.named(Way::Post), true),
        ("*.example.com", servers.named(Way::Post), true),
        ("example.org", servers.named(Way::Post), false),
        ("127.0.0.0/8", servers.named(Way::Post), true),
        ("127.0.0.0/8", servers.url(Way::Post), true),
        ("127.0.0.2", servers.url(Way::Post), false),
        ("example.com:1", servers.named(Way::Post), false),
    ];
    for (entry, url, is_direct) in cases {
        let proxy = ForwardProxy::start(None).await.unwrap();
        let sender = sender_to(&servers, allowing("127.0.0.1"), &names(), without(&proxy, &[entry])).await;
        assert_eq!(sender.answer(Way::Post, &url).await, Ok(()), "{entry} {url}");
        assert_eq!(proxy.targets().is_empty(), is_direct, "{entry} {url}");
        let denied = sender_to(&servers, Policy::default(), &names(), without(&proxy, &[entry])).await;
        assert_eq!(denied.answer(Way::Post, &url).await, Err(AttemptReason::EgressDenied), "{entry} {url}");
    }
    let proxy = ForwardProxy::start(None).await.unwrap();
    let own = format!("example.com:{port}");
    let sender = sender_to(&servers, allowing("127.0.0.1"), &names(), without(&proxy, &[&own])).await;
    assert_eq!(sender.answer(Way::Post, &servers.named(Way::Post)).await, Ok(()));
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn a_proxy_that_resolves_names_gets_the_name_and_literal_addresses_are_still_judged() {
    let servers = Servers::start(HOST).await;
    let proxy = ForwardProxy::start(None).await.unwrap();
    proxy.lead(HOST, Ipv4Addr::LOCALHOST);
    let names = Names::of(&[]);
    let resolving = || configured(ProxySettings { resolves: true, ..settings(&proxy) });
    let sender = sender_to(&servers, Policy::default(), &names, resolving()).await;
    for way in WAYS {
        assert_eq!(sender.http.check(&servers.named(way).parse().unwrap()).await, Ok(()));
        assert_eq!(sender.answer(way, &servers.named(way)).await, Ok(()), "{way:?}");
        assert!(proxy.targets().contains(&format!("{HOST}:{}", servers.port(way))), "{way:?}: {:?}", proxy.targets());
    }
    let asked = proxy.connections();
    for url in ["https://127.0.0.1/", "https://0x7f.1/", "https://localhost/", "https://a.b.svc/", "https://metadata/"]
    {
        for way in WAYS {
            assert_eq!(sender.answer(way, url).await, Err(AttemptReason::EgressDenied), "{way:?} {url}");
        }
    }
    assert_eq!(proxy.connections(), asked);
    assert_eq!(names.asked.load(Ordering::Relaxed), 0, "the operator looked a name up");
    // The proxy knows no such name.
    let message = sender.message(Way::Post, "https://none.example.com/").await;
    assert!(message.contains("could not connect to the host (status 502)"), "{message}");
    // Hosts without a proxy are looked up and judged as usual.
    let no_proxy = vec!["example.com".parse().unwrap()];
    let names = Names::of(&[(HOST, &[Ipv4Addr::LOCALHOST])]);
    let direct = || configured(ProxySettings { no_proxy: no_proxy.clone(), resolves: true, ..settings(&proxy) });
    let url = servers.named(Way::Post);
    let sender = sender_to(&servers, Policy::default(), &names, direct()).await;
    assert_eq!(sender.answer(Way::Post, &url).await, Err(AttemptReason::EgressDenied));
    let sender = sender_to(&servers, allowing("127.0.0.1"), &names, direct()).await;
    let before = proxy.connections();
    assert_eq!(sender.answer(Way::Post, &url).await, Ok(()));
    assert_eq!(proxy.connections(), before);
}

#[tokio::test]
async fn tunnels_are_reused_and_one_that_closes_under_a_request_costs_no_attempt() {
    let servers = Servers::start(HOST).await;
    let proxy = ForwardProxy::start(None).await.unwrap();
    let server = RawServer::tls(servers.authority.server_config(&[]), async |mut stream: TlsStream<TcpStream>| {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        read_request(&mut stream).await;
    });
    let server = server.await.unwrap();
    let sender = sender_to(&servers, allowing("127.0.0.1"), &Names::of(&[]), plain(&proxy)).await;
    for request in 1..=4 {
        assert_eq!(sender.post(&server.url("/"), PATIENCE).await.verdict, Verdict::Delivered, "request {request}");
    }
    assert!(server.connections() >= 3, "{} connections: no tunnel was reused", server.connections());
    assert_eq!(proxy.connections(), server.connections());

    let kept = Receiver::start_with(servers.authority.server_config(&[]), servers.tokens.tokens()).await.unwrap();
    let before = proxy.connections();
    for _ in 0..10 {
        assert_eq!(sender.answer(Way::Options, &kept.url("/")).await, Ok(()));
    }
    assert_eq!(proxy.connections(), before + 1, "one tunnel serves all of them");
    let egress = Egress::with_lookup(allowing("127.0.0.1"), Names::of(&[])).through(plain(&proxy));
    for namespace in ["a", "b"] {
        let sender = Sender::over(egress.client(namespace, &trusting(&servers.authority)).unwrap()).await;
        assert_eq!(sender.answer(Way::Options, &kept.url("/")).await, Ok(()));
    }
    assert_eq!(proxy.connections(), before + 3, "namespaces share no tunnel");
}

#[tokio::test]
async fn s19_a_proxy_that_hangs_holds_no_more_connections_to_a_host_than_a_server_that_hangs() {
    const MOST: usize = 128;
    let servers = Servers::start(HOST).await;
    let proxy = ForwardProxy::start(None).await.unwrap();
    proxy.treat(Manner::Hang);
    let sender = sender_to(&servers, allowing("127.0.0.1"), &Names::of(&[]), plain(&proxy)).await;
    let url = servers.url(Way::Options);
    let sent = futures::future::join_all((0..2 * MOST).map(|_| sender.options(&url, Duration::from_secs(8))));
    let counted = async {
        let deadline = Instant::now() + Duration::from_secs(6);
        while proxy.connections() < MOST {
            assert!(Instant::now() < deadline, "{} connections", proxy.connections());
            sleep(Duration::from_millis(20)).await;
        }
        // Others would follow immediately.
        sleep(Duration::from_millis(500)).await;
        proxy.connections()
    };
    let (sent, connections) = tokio::join!(sent, counted);
    assert_eq!(connections, MOST);
    assert!(sent.iter().all(Result::is_err));
}

#[tokio::test]
async fn s10_what_the_proxy_gets_and_answers_is_shown_nowhere_while_its_failures_hold_the_events() {
    let mut world = World::new("proxy").await;
    let proxy = ForwardProxy::start(None).await.unwrap();
    proxy.require("canary-proxy-user:canary-proxy-password");
    let folder = Folder::new("proxy").unwrap();
    let file = folder.write("credentials", "canary-proxy-user:canary-proxy-wrong\n").unwrap();
    let flags = [
        "--egress-proxy",
        &proxy.url(),
        "--egress-proxy-credentials-file",
        file.to_str().unwrap(),
        "--log-level",
        "trace",
    ];
    let operator = world.launch().to_loopback().args(&flags).ready(PATIENCE).await.unwrap();
    world.secret(CLIENT.1).await;
    let by_name = |url: &mut serde_json::Value| *url = url.as_str().unwrap().replace("127.0.0.1", "localhost").into();
    world
        .subscriber("shop", |spec| {
            by_name(&mut spec["webhook"]["url"]);
            by_name(&mut spec["tokenService"]["url"]);
        })
        .await;
    let stopped = world.until_reason("shop", "TokenUnavailable").await;
    let message = condition(&stopped, "Ready")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("the proxy rejected the operator's credentials (status 407)"), "{message}");
    folder.write("credentials", "canary-proxy-user:canary-proxy-password\n").unwrap();
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until_phase("n", "Delivered").await;
    let targets = proxy.targets();
    assert!(targets.iter().all(|target| target.starts_with("127.0.0.1:")), "{targets:?}");

    // What the proxy refuses fails an attempt, and the event waits.
    proxy.treat(Manner::Answer(b"HTTP/1.1 403 Forbidden\r\nX-Canary: canary-proxy-answer\r\n\r\n".to_vec()));
    // Closes the tunnels that could be reused.
    world.receiver.stop();
    world.receiver.resume().await.unwrap();
    world.notification("m", "shop", json!({"source": "/s", "type": "t"})).await;
    let held = world.until("notification", "m", |n| n["status"]["attempts"] == 1).await;
    assert_eq!(held["status"]["lastAttempt"]["reason"], "ProxyFailed");
    assert!(held["status"].to_string().contains("the proxy refused to connect to the host (status 403)"), "{held}");
    proxy.treat(Manner::Open);
    world.until_phase("m", "Delivered").await;

    let metrics = operator.metrics().await.unwrap();
    assert!(metrics.contains("ProxyFailed"), "{metrics}");
    let events = world.kubectl(&["get", "events", "-o", "yaml"]).await.ok().unwrap();
    let objects =
        serde_json::Value::from([world.list("subscribers").await, world.list("notifications").await].concat());
    assert_eq!(operator.terminate().await.unwrap(), 0);
    let shown = [("log", operator.logs()), ("metrics", metrics), ("objects", objects.to_string()), ("Events", events)];
    for (place, text) in shown {
        assert!(text.len() > 100, "there is nothing to search in {place}");
        for secret in ["canary-proxy-user", "canary-proxy-password", "canary-proxy-wrong", "canary-proxy-answer"] {
            assert_eq!(canary::line_with(&text, secret), None, "{secret} is in {place}");
        }
    }
}

#[tokio::test]
async fn settings_of_the_proxy_that_make_no_sense_are_refused_at_the_start_with_the_flag() {
    let folder = Folder::new("proxy").unwrap();
    let path = |file: PathBuf| file.to_str().unwrap().to_owned();
    let bad = path(folder.write("bad", "canary-no-colon").unwrap());
    let none = path(folder.path().join("none"));
    let (http, https) = ("http://127.0.0.1:9", "https://127.0.0.1:9");
    let cases: [(&[&str], &str); 11] = [
        (&["--egress-proxy-resolves"], "--egress-proxy-resolves requires --egress-proxy"),
        (&["--egress-no-proxy", "example.com"], "--egress-no-proxy requires --egress-proxy"),
        (&["--egress-proxy-credentials-file", &none], "--egress-proxy-credentials-file requires --egress-proxy"),
        (&["--egress-proxy-ca-file", &none], "--egress-proxy-ca-file requires --egress-proxy"),
        (&["--egress-proxy", http, "--egress-proxy-ca-file", &none], "--egress-proxy-ca-file requires an https URL"),
        (
            &["--egress-proxy", https, "--egress-proxy-ca-file", &none],
            "--egress-proxy-ca-file: the file cannot be read",
        ),
        (&["--egress-proxy", https, "--egress-proxy-ca-file", &bad], "--egress-proxy-ca-file: there is no PEM"),
        (
            &["--egress-proxy", http, "--egress-proxy-credentials-file", &none],
            "--egress-proxy-credentials-file: the file cannot be read",
        ),
        (
            &["--egress-proxy", http, "--egress-proxy-credentials-file", &bad],
            "--egress-proxy-credentials-file: the file does not contain a line of the form user:password",
        ),
        (&["--egress-proxy", "http://user:canary@127.0.0.1:9"], "must not contain a user name or password"),
        (&["--egress-proxy", "127.0.0.1:9"], "--egress-proxy"),
    ];
    for (flags, expected) in cases {
        let mut command = Command::new(binary());
        command.arg("run").args(["--admin-addr", "127.0.0.1:0", "--health-addr", "127.0.0.1:0"]).args(flags);
        let output = command.env_remove("KUBECONFIG").output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{flags:?}: {said}");
        assert!(!said.contains("canary"), "{flags:?}: {said}");
    }
}
