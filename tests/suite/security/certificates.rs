//! Who is believed at the other end, and what is shown there (S15).

use std::sync::Arc;

use AttemptReason::TLSFailed;
use serde_json::json;
use testkit::{
    Authority, Client, Identity, RawServer, Receiver, TokenService,
    folder::Folder,
    pki::rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, SanType, date_time_ymd},
};
use tidings_api::AttemptReason;
use tidings_delivery::egress::{Authorities, ClientIdentity, Egress, Trust};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::{
    sending::{Sender, WAYS, Way, allowing},
    token_sources::{trusting, trusting_pem},
    world::{CLIENT, PATIENCE, World, condition},
};

/// A webhook and a token service with one TLS side.
struct Servers {
    receiver: Receiver,
    tokens: TokenService,
}

impl Servers {
    async fn start(tls: Arc<rustls::ServerConfig>) -> Self {
        let tokens = TokenService::start_with(tls.clone()).await.unwrap();
        tokens.register(Client::new("id", "secret"));
        Self { receiver: Receiver::start_with(tls, tokens.tokens()).await.unwrap(), tokens }
    }

    fn url(&self, way: Way) -> String {
        match way {
            Way::Post | Way::Options => self.receiver.url("/"),
            Way::Token => self.tokens.url(),
        }
    }

    /// Asserts that a client with this trust gets the same answer every way, and whether a request arrives.
    async fn give(&self, name: &str, trust: &Trust, expected: Result<(), AttemptReason>) {
        let before = self.requests();
        let sender = Sender::new(allowing("127.0.0.1"), trust).await;
        for way in WAYS {
            assert_eq!(sender.answer(way, &self.url(way)).await, expected, "{name}: {way:?}");
        }
        assert_eq!(self.requests() > before, expected.is_ok(), "{name}: requests that arrive");
    }

    fn requests(&self) -> usize {
        self.receiver.requests().len() + self.tokens.requests().len()
    }
}

#[tokio::test]
async fn s15_each_bad_certificate_ends_the_exchange_before_anything_is_sent() {
    let authority = Authority::new();
    let changed = |change: fn(&mut CertificateParams)| authority.server_identity_with(change);
    let cases = [
        ("expired", changed(|params| params.not_after = date_time_ymd(2020, 1, 1))),
        ("not valid yet", changed(|params| params.not_before = date_time_ymd(4000, 1, 1))),
        ("for another host", changed(|params| params.subject_alt_names = vec![name("other.example")])),
        ("for another address", changed(|params| params.subject_alt_names = vec![address("127.0.0.2")])),
        ("with the address as a name", changed(|params| params.subject_alt_names = vec![name("127.0.0.1")])),
        ("for localhost and no address", changed(|params| params.subject_alt_names = vec![name("localhost")])),
        ("with a wildcard", changed(|params| params.subject_alt_names = vec![name("*.0.0.1")])),
        (
            "with the host in its common name alone",
            changed(|params| {
                params.subject_alt_names.clear();
                params.distinguished_name.push(DnType::CommonName, "127.0.0.1");
            }),
        ),
        ("for clients", changed(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])),
        ("of an authority", changed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("of an unknown authority with the same name", Authority::new().server_identity(&[])),
        ("signed by itself", Identity::self_signed()),
    ];
    for (flaw, identity) in cases {
        let servers = Servers::start(identity.server_config()).await;
        servers.give(flaw, &trusting(&authority), Err(TLSFailed)).await;
    }
}

#[tokio::test]
async fn field_08_the_message_names_the_cause_of_a_failed_handshake() {
    let authority = Authority::new();
    let changed = |change: fn(&mut CertificateParams)| authority.server_identity_with(change).server_config();
    let own = |change: fn(&mut CertificateParams)| Identity::self_signed_with(change).server_config();
    let many = |params: &mut CertificateParams| {
        params.subject_alt_names = (0..7).map(|n| name(&format!("n{n}.example"))).collect();
    };
    let (plain, demanding) = (authority.server_identity(&[]), authority.server_identity(&[]));
    let demanding = |version| demanding.server_config_with(Some(&authority), &[version]);
    let strange = showing(&Authority::new().client_identity("acme"), &authority);
    let trust = || trusting(&authority);
    let client = "tls.clientCertificateSecretRef";
    let cases = [
        (changed(|params| params.not_after = date_time_ymd(2020, 1, 1)), trust(), "has expired: renew"),
        (changed(|params| params.not_before = date_time_ymd(4000, 1, 1)), trust(), "not valid yet"),
        (
            changed(|params| params.subject_alt_names = vec![name("*.other.example"), address("10.0.0.1")]),
            trust(),
            "is not valid for the host in the URL, only for *.other.example, 10.0.0.1",
        ),
        (changed(many), trust(), "only for n0.example, n1.example, n2.example, n3.example, n4.example and more"),
        (changed(|params| params.subject_alt_names.clear()), trust(), "has no names for servers"),
        (
            changed(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            trust(),
            "must include serverAuth",
        ),
        (
            Authority::new().server_config(&[]),
            trust(),
            "an unknown authority issued the server's certificate: set tls.caRef",
        ),
        (own(|_| ()), trust(), "an unknown authority issued the server's certificate: set tls.caRef"),
        (demanding(&rustls::version::TLS13), trust(), "requires a client certificate: set tls.client"),
        (demanding(&rustls::version::TLS12), trust(), client),
        (demanding(&rustls::version::TLS13), strange.clone(), "rejects the client certificate"),
        (plain.server_config(), Trust::default(), "set tls.caRef"),
    ];
    for (tls, trust, expected) in cases {
        let servers = Servers::start(tls).await;
        let sender = Sender::new(allowing("127.0.0.1"), &trust).await;
        for way in WAYS {
            let message = sender.message(way, &servers.url(way)).await;
            assert!(
                message.contains("the TLS handshake failed: ") && message.contains(expected),
                "{expected}: {message}"
            );
            assert!(message.len() <= 256 && !message.contains("127.0.0.1"), "{message}");
        }
    }
    // What answers is not TLS, knows no such host, or has no common version.
    for (answer, expected) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "not TLS: check the port"),
        (b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), "not TLS: check the port"),
        (vec![21, 3, 3, 0, 2, 2, 112], "does not know the host name"),
        (vec![21, 3, 3, 0, 2, 2, 70], "no common TLS version or cipher"),
        (vec![21, 3, 3, 0, 2, 2, 40], "refused the handshake"),
    ] {
        let server = RawServer::tcp(move |mut stream: TcpStream| {
            let answer = answer.clone();
            async move {
                let _ = stream.read(&mut [0; 16 * 1024]).await;
                let _ = stream.write_all(&answer).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
        let server = server.await.unwrap();
        let sender = Sender::new(allowing("127.0.0.1"), &trust()).await;
        for way in WAYS {
            let message = sender.message(way, &server.url("/")).await;
            assert!(message.contains(expected), "{expected}: {message}");
        }
    }
}

#[tokio::test]
async fn field_07_a_self_signed_certificate_in_the_bundle_is_trusted_or_the_message_says_what_to_change() {
    // `openssl req -x509` makes a certificate with CA:TRUE. Without it, the certificate may stand in the bundle itself.
    let with_ca = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (identity, expected) in [
        (Identity::self_signed(), None),
        (Identity::self_signed_with(with_ca), Some("basicConstraints=critical,CA:FALSE")),
    ] {
        let servers = Servers::start(identity.server_config()).await;
        let trust = trusting_pem(&identity.certificate_pem);
        let result = expected.map_or(Ok(()), |_| Err(TLSFailed));
        servers.give("self-signed, and in the bundle", &trust, result).await;
        let sender = Sender::new(allowing("127.0.0.1"), &trust).await;
        for way in WAYS {
            let message = sender.message(way, &servers.url(way)).await;
            assert!(expected.is_none_or(|expected| message.contains(expected)) && message.len() <= 256, "{message}");
        }
    }
    // Name and validity still count.
    let changes: [fn(&mut CertificateParams); 2] = [
        |params| params.subject_alt_names = vec![name("other.example")],
        |params| params.not_after = date_time_ymd(2020, 1, 1),
    ];
    for change in changes {
        let identity = Identity::self_signed_with(change);
        let servers = Servers::start(identity.server_config()).await;
        let trust = trusting_pem(&identity.certificate_pem);
        servers.give("self-signed, in the bundle, and bad", &trust, Err(TLSFailed)).await;
    }
}

fn name(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn address(address: &str) -> SanType {
    SanType::IpAddress(address.parse().unwrap())
}

#[tokio::test]
async fn s15_a_private_authority_is_trusted_only_by_subscribers_that_name_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let servers = Servers::start(authority.server_config(&[])).await;
    servers.give("named", &trusting(&authority), Ok(())).await;
    let both = [other.ca_pem(), authority.ca_pem()].concat();
    servers.give("named with another", &trusting_pem(&both), Ok(())).await;
    servers.give("another named", &trusting(&other), Err(TLSFailed)).await;
    servers.give("none named", &Trust::default(), Err(TLSFailed)).await;
    // One egress for all of them: what one believes is not what another one does.
    let egress = Egress::new(allowing("127.0.0.1"));
    for (trust, expected) in [(trusting(&authority), Ok(())), (Trust::default(), Err(TLSFailed))] {
        let sender = Sender::over(egress.client("test", &trust).unwrap()).await;
        assert_eq!(sender.answer(Way::Options, &servers.url(Way::Options)).await, expected);
    }
}

#[tokio::test]
async fn s15_a_private_authority_can_be_the_only_one_that_is_trusted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let servers = Servers::start(authority.server_config(&[])).await;
    let only =
        |authority: &Authority| Trust { authorities: Authorities::Only(authority.ca_pem().into()), identity: None };
    servers.give("the only one", &only(&authority), Ok(())).await;
    servers.give("another is the only one", &only(&other), Err(TLSFailed)).await;
}

#[tokio::test]
async fn s15_a_subscriber_that_excludes_the_public_authorities_trusts_its_own_bundle_alone() {
    let world = World::new("public-roots").await;
    // SSL_CERT_FILE makes the authority of the endpoints a public one.
    let folder = Folder::new("public-roots").unwrap();
    let public = folder.write("public.pem", world.authority.ca_pem()).unwrap();
    let launch = world.launch().to_loopback().env("SSL_CERT_FILE", public.to_str().unwrap());
    let _operator = launch.ready(PATIENCE).await.unwrap();
    world.secret(CLIENT.1).await;
    let bundle = |pem: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "own"}, "data": {"ca.crt": pem}});
    world.apply(&bundle(Authority::new().ca_pem())).await;
    let subscriber = async |name: &str, public_roots: Option<&str>| {
        let tls = json!({"caRef": {"kind": "ConfigMap", "name": "own"}, "publicRoots": public_roots});
        world.subscriber(name, |spec| spec["webhook"]["tls"] = tls).await;
        world.notification(name, name, json!({"source": "/s", "type": "t"})).await;
    };
    subscriber("default", None).await;
    world.until_phase("default", "Delivered").await;
    subscriber("include", Some("Include")).await;
    world.until_phase("include", "Delivered").await;
    subscriber("exclude", Some("Exclude")).await;
    let failed = world.until("notification", "exclude", |n| n["status"]["attempts"] == 1).await;
    assert_eq!(failed["status"]["lastAttempt"]["reason"], "TLSFailed");
    assert!(world.posts("/exclude").is_empty());
    // The private authority delivers, and it may change without a restart.
    world.apply(&bundle(world.authority.ca_pem())).await;
    world.until_phase("exclude", "Delivered").await;
    // The token service has settings of its own.
    world
        .subscriber("tokens", |spec| {
            spec["tokenService"]["tls"] =
                json!({"caRef": {"kind": "ConfigMap", "name": "own"}, "publicRoots": "Exclude"});
        })
        .await;
    world.until_reason("tokens", "Operational").await;
    world.apply(&bundle(Authority::new().ca_pem())).await;
    let stopped = |s: &serde_json::Value| condition(s, "TokenAvailable")["reason"] == "TokenUnavailable";
    let stopped = world.until("subscriber", "tokens", stopped).await;
    let message = condition(&stopped, "TokenAvailable")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("an unknown authority issued the server's certificate"), "{message}");
}

#[tokio::test]
async fn s15_tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let authority = Authority::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let tls = authority.server_identity(&[]).server_config_with(None, &[version]);
        let servers = Servers::start(tls).await;
        servers.give(&format!("{version:?}"), &trusting(&authority), Ok(())).await;
    }
    // TLS 1.1 (RFC 4346): a ServerHello of its own, and the alert of a server that knows no newer version.
    let hello = [&[2, 0, 0, 38, 3, 2][..], &[7; 32], &[0, 0xc0, 0x13, 0]].concat();
    let old = [&[22, 3, 2, 0, 42][..], &hello].concat();
    let alert = vec![21, 3, 2, 0, 2, 2, 70];
    for answer in [old, alert] {
        let (report, mut reported) = mpsc::unbounded_channel();
        let server = RawServer::tcp(move |mut stream: TcpStream| {
            let (answer, report) = (answer.clone(), report.clone());
            async move {
                let _ = stream.read(&mut [0; 16 * 1024]).await;
                let _ = stream.write_all(&answer).await;
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                let _ = report.send(rest);
            }
        });
        let server = server.await.unwrap();
        let sender = Sender::new(allowing("127.0.0.1"), &trusting(&authority)).await;
        for way in WAYS {
            assert_eq!(sender.answer(way, &server.url("/")).await, Err(TLSFailed), "{way:?}");
            let rest = reported.recv().await.unwrap();
            assert!(rest.first().is_none_or(|kind| *kind == 21), "no more than an alert comes back: {rest:?}");
        }
        assert_eq!(server.connections(), WAYS.len(), "no second try with less");
    }
}

/// Trust in `authority`, and a client certificate to show.
fn showing(identity: &Identity, authority: &Authority) -> Trust {
    let identity = ClientIdentity {
        certificate_pem: identity.certificate_pem.clone().into(),
        key_pem: identity.key_pem.clone().into_bytes().into(),
    };
    Trust { identity: Some(identity), ..trusting(authority) }
}

#[tokio::test]
async fn s15_a_server_that_demands_a_client_certificate_gets_the_right_one_or_no_request() {
    let authority = Authority::new();
    let (right, strange) = (authority.client_identity("acme"), Authority::new().client_identity("acme"));
    let wrong_use = authority.server_identity(&[]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let tls = authority.server_identity(&[]).server_config_with(Some(&authority), &[version]);
        let servers = Servers::start(tls).await;
        for round in 0..20 {
            let case = |name| format!("{name}, {version:?}, round {round}");
            servers.give(&case("the right one"), &showing(&right, &authority), Ok(())).await;
            servers.give(&case("none"), &trusting(&authority), Err(TLSFailed)).await;
            servers.give(&case("a stranger's"), &showing(&strange, &authority), Err(TLSFailed)).await;
            servers.give(&case("a server's"), &showing(&wrong_use, &authority), Err(TLSFailed)).await;
        }
    }
    let open = Servers::start(authority.server_config(&[])).await;
    open.give("not requested", &showing(&right, &authority), Ok(())).await;
}
