//! Where requests may go: S1, S3 and S4 of the threat model, against real listeners on loopback. (S2 is beside the
//! policy, S5 in the architecture test.) All of 127.0.0.0/8 is loopback on Linux; elsewhere 127.0.0.2 has to be set up
//! first.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::future::BoxFuture;
use testkit::{Authority, RawServer};
use tidings_api::AttemptReason;
use tidings_delivery::egress::{Egress, Lookup, Policy, SendError, Trust};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    security::servers::Servers,
    sending::{PATIENCE, Sender, WAYS, Way, allowing},
    token_sources::trusting,
    world::{CLIENT, World, condition},
};

const PERMITTED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const FORBIDDEN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

/// A listener that nothing should connect to.
struct Victim {
    server: RawServer,
    probes: AtomicUsize,
}

impl Victim {
    async fn at(address: SocketAddr) -> Self {
        let answer = async |mut stream: TcpStream| drop(stream.write_all(b"seen").await);
        let server = RawServer::tcp_at(address, answer).await.unwrap();
        Self { server, probes: AtomicUsize::new(0) }
    }

    fn url(&self) -> String {
        self.server.url("/")
    }

    fn port(&self) -> u16 {
        self.server.address().port()
    }

    /// How many connections others than this one have been made so far: they queue, so those before ours are counted.
    async fn connections(&self) -> usize {
        let mut probe = TcpStream::connect(self.server.address()).await.unwrap();
        let mut answer = String::new();
        probe.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "seen");
        self.server.connections() - (self.probes.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// A DNS that answers each question with the next of its answers, and the last one over and over.
#[derive(Debug)]
struct Names {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Names {
    fn answering(answers: &[&[IpAddr]]) -> Arc<Self> {
        let answers = answers.iter().map(|addresses| addresses.to_vec()).collect();
        Arc::new(Self { answers: Mutex::new(answers), asked: AtomicUsize::new(0) })
    }
}

impl Lookup for Names {
    fn lookup(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        assert_eq!(name, HOST);
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async { Ok(answer.unwrap()) })
    }
}

/// The names that were looked up with [`Names`].
const HOST: &str = "rebound.example";

/// Creates a sender to the servers, with this policy and these answers for [`HOST`].
async fn sender_to(servers: &Servers, policy: Policy, names: Arc<Names>) -> Sender {
    servers.sender(Egress::with_lookup(policy, names)).await
}

/// A server that gives this answer, which has no body, to one request on each connection.
async fn answering(authority: &Authority, answer: &str) -> RawServer {
    let answer = format!("HTTP/1.1 {answer}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    RawServer::answering(authority.server_config(&[HOST]), answer).await.unwrap()
}

#[tokio::test]
async fn s01_a_neighbor_of_the_one_permitted_address_sees_no_connection() {
    let victim = Victim::at((FORBIDDEN, 0).into()).await;
    let by_name = victim.url().replace("127.0.0.2", HOST);
    for url in [victim.url(), by_name] {
        let egress = |policy| Egress::with_lookup(policy, Names::answering(&[&[FORBIDDEN]]));
        let client = |policy| egress(policy).client("test", &Trust::default()).unwrap();
        let sender = Sender::over(client(allowing("127.0.0.1/32"))).await;
        let before = victim.connections().await;
        for way in WAYS {
            assert_eq!(sender.answer(way, &url).await, Err(AttemptReason::EgressDenied), "{way:?} {url}");
        }
        assert_eq!(victim.connections().await, before, "{url}");
        let sender = Sender::over(client(allowing("127.0.0.2/32"))).await;
        for way in WAYS {
            assert_eq!(sender.answer(way, &url).await, Err(AttemptReason::TLSFailed), "{way:?} {url}");
        }
        assert_eq!(victim.connections().await, before + WAYS.len(), "a connection that is permitted shows");
    }
}

#[tokio::test]
async fn s01_a_host_allowed_by_name_is_dialled_wherever_it_leads_and_its_address_is_not() {
    let servers = Servers::start(HOST).await;
    let by_name = || Policy::default().allowing_hosts(vec![HOST.parse().unwrap()]);
    for way in WAYS {
        let sender = sender_to(&servers, by_name(), Names::answering(&[&[PERMITTED]])).await;
        assert_eq!(sender.answer(way, &servers.named(way)).await, Ok(()), "{way:?}");
        assert_eq!(sender.answer(way, &servers.url(way)).await, Err(AttemptReason::EgressDenied), "{way:?}");
        let unspecified = [IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let sender = sender_to(&servers, by_name(), Names::answering(&[&unspecified])).await;
        assert_eq!(sender.answer(way, &servers.named(way)).await, Err(AttemptReason::EgressDenied), "{way:?}");
    }
}

#[tokio::test]
async fn s03_a_name_that_was_permitted_when_checked_is_judged_again_when_dialled() {
    let servers = Servers::start(HOST).await;
    for way in WAYS {
        let victim = Victim::at((FORBIDDEN, servers.port(way)).into()).await;
        for forbidden in ["127.0.0.2", "::ffff:127.0.0.2", "64:ff9b::127.0.0.2", "0.0.0.0"] {
            let names = Names::answering(&[&[PERMITTED], &[forbidden.parse().unwrap()]]);
            let sender = sender_to(&servers, allowing("127.0.0.1"), names).await;
            let url = servers.named(way);
            assert_eq!(sender.http.check(&url.parse().unwrap()).await, Ok(()), "the first answer is permitted");
            assert_eq!(sender.answer(way, &url).await, Err(AttemptReason::EgressDenied), "{way:?} {forbidden}");
            assert_eq!(sender.http.check(&url.parse().unwrap()).await, Err(SendError::Denied));
        }
        assert_eq!(victim.connections().await, 0, "{way:?}");
    }
    assert!(servers.receiver.requests().is_empty() && servers.tokens.requests().is_empty());
}

#[tokio::test]
async fn s03_each_new_connection_is_judged_whatever_the_last_one_was_permitted() {
    let authority = Authority::new();
    for way in WAYS {
        let server = answering(&authority, "503 Service Unavailable").await;
        let victim = Victim::at((FORBIDDEN, server.address().port()).into()).await;
        let names = Names::answering(&[&[PERMITTED], &[FORBIDDEN]]);
        let egress = Egress::with_lookup(allowing("127.0.0.1"), names);
        let sender = Sender::over(egress.client("test", &trusting(&authority)).unwrap()).await;
        let url = server.url("/").replace("127.0.0.1", HOST);
        assert_eq!(sender.answer(way, &url).await, Ok(()), "{way:?}");
        assert_eq!(sender.answer(way, &url).await, Err(AttemptReason::EgressDenied), "{way:?}");
        assert_eq!((server.connections(), victim.connections().await), (1, 0), "{way:?}");
    }
}

#[tokio::test]
async fn s03_a_name_is_resolved_once_and_of_its_addresses_only_the_permitted_ones_are_dialled() {
    let servers = Servers::start(HOST).await;
    for way in WAYS {
        let victim = Victim::at((FORBIDDEN, servers.port(way)).into()).await;
        let names = Names::answering(&[&[FORBIDDEN, PERMITTED], &[FORBIDDEN]]);
        let sender = sender_to(&servers, allowing("127.0.0.1"), names.clone()).await;
        assert_eq!(sender.answer(way, &servers.named(way)).await, Ok(()), "{way:?}");
        assert_eq!(names.asked.load(Ordering::Relaxed), 1);
        assert_eq!(victim.connections().await, 0, "{way:?}");
    }
    let victim = Victim::at((FORBIDDEN, 0).into()).await;
    for way in WAYS {
        let names = Names::answering(&[&[PERMITTED, FORBIDDEN]]);
        let sender = sender_to(&servers, allowing("127.0.0.1"), names).await;
        let url = format!("https://{HOST}:{}/", victim.port());
        assert_eq!(sender.answer(way, &url).await, Err(AttemptReason::ConnectionFailed), "no server listens there");
    }
    assert_eq!(victim.connections().await, 0, "the forbidden address is no second choice");
}

#[tokio::test]
async fn s04_a_literal_address_is_judged_like_a_name_however_it_is_written() {
    let victim = Victim::at((PERMITTED, 0).into()).await;
    // Some machines have no IPv6; there the verdict alone is tested.
    let sixth = match std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(_) => Some(Victim::at((IpAddr::V6(Ipv6Addr::LOCALHOST), victim.port()).into()).await),
        Err(_) => None,
    };
    let sender = Sender::new(allowing("127.0.0.2/32"), &Trust::default()).await;
    let hosts = [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0x7F.0X1",
        "0177.0.0.1",
        "017700000001",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
        "127。0。0。1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::1]",
        "localhost",
        "LOCALHOST",
        "169.254.169.254",
        "[fe80::1]",
        "[fd00:ec2::254]",
    ];
    for host in hosts {
        let url = format!("https://{host}:{}/", victim.port());
        for way in WAYS {
            assert_eq!(sender.answer(way, &url).await, Err(AttemptReason::EgressDenied), "{way:?} {url}");
        }
    }
    for victim in [Some(&victim), sixth.as_ref()].into_iter().flatten() {
        assert_eq!(victim.connections().await, 0);
    }
    let sender = Sender::new(allowing("127.0.0.1/32"), &Trust::default()).await;
    for host in ["127.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]", "localhost"] {
        let url = format!("https://{host}:{}/", victim.port());
        assert_eq!(sender.answer(Way::Options, &url).await, Err(AttemptReason::TLSFailed), "{host}");
    }
    assert_eq!(victim.connections().await, 4, "a connection that is permitted shows");
}

#[tokio::test]
async fn s04_no_redirect_leads_anywhere() {
    let (authority, victim) = (Authority::new(), Victim::at((FORBIDDEN, 0).into()).await);
    let sender = Sender::new(allowing("127.0.0.0/8"), &trusting(&authority)).await;
    for status in [300, 301, 302, 303, 305, 307, 308] {
        let head = format!("{status} Elsewhere\r\nlocation: {}", victim.url());
        let server = answering(&authority, &head).await;
        assert_eq!(sender.post(&server.url("/"), PATIENCE).await.reason, AttemptReason::RedirectRefused);
        assert_eq!(sender.options(&server.url("/"), PATIENCE).await.unwrap().status, status);
        assert!(sender.token(&server.url("/"), PATIENCE).await.is_some(), "no token");
        assert_eq!(server.connections(), WAYS.len());
    }
    assert_eq!(victim.connections().await, 0);
}

#[tokio::test]
async fn s04_requests_go_straight_to_their_host() {
    let authority = Authority::new();
    let server = answering(&authority, "404 Not Found").await;
    let sender = Sender::new(allowing("127.0.0.1"), &trusting(&authority)).await;
    for way in WAYS {
        assert_eq!(sender.answer(way, &server.url("/")).await, Ok(()), "{way:?}");
    }
    assert_eq!(server.connections(), WAYS.len());
}

/// Runs the test above again in a process whose environment names a proxy for everything.
#[tokio::test]
async fn s04_no_proxy_of_the_environment_is_used() {
    let victim = Victim::at((FORBIDDEN, 0).into()).await;
    let proxy = format!("http://{}", victim.server.address());
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests.args(["--exact", "security::egress::s04_requests_go_straight_to_their_host"]);
    for variable in ["http_proxy", "https_proxy", "all_proxy"] {
        tests.env(variable, &proxy).env(variable.to_uppercase(), &proxy);
    }
    tests.env_remove("no_proxy").env_remove("NO_PROXY");
    let output = tokio::task::spawn_blocking(move || tests.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(victim.connections().await, 0, "{said}");
}

#[tokio::test]
async fn s01_the_flags_of_the_operator_open_what_they_name_and_the_message_names_them() {
    let world = World::new("hosts").await;
    let operator = world.start(&["--egress-allow-host", "localhost"]).await;
    operator.ready(PATIENCE).await.unwrap();
    world.secret(CLIENT.1).await;
    let by_name = |url: &mut serde_json::Value| *url = url.as_str().unwrap().replace("127.0.0.1", "localhost").into();
    world
        .subscriber("named", |spec| {
            by_name(&mut spec["webhook"]["url"]);
            by_name(&mut spec["tokenService"]["url"]);
        })
        .await;
    world.until_reason("named", "Operational").await;
    world.subscriber("literal", |spec| by_name(&mut spec["tokenService"]["url"])).await;
    let denied = world.until_reason("literal", "EgressDenied").await;
    let message = condition(&denied, "Ready")["message"].as_str().unwrap().to_owned();
    for setting in ["--egress-allow-cidr", "egress.allowCIDRs", "--egress-allow-host", "egress.allowHosts"] {
        assert!(message.contains(setting), "{setting}: {message}");
    }
    assert!(!message.contains("127.0.0.1"), "{message}");
}
