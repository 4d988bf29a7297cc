//! The command line. Each flag of `tidings run` has an environment variable.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand};
use http::HeaderValue;
use tidings_delivery::egress::{Cidr, ClusterDomain, HostPattern, Nat64Prefix, NoProxy, ProxySettings, name_server};
use tracing::level_filters::LevelFilter;

use crate::{
    operator::Settings,
    telemetry::LogFormat,
    traces::{self, InvalidTraces, Protocol, Sampling},
};

/// The `tidings` program. The help shows the description in Cargo.toml instead of this text.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator in the cluster of the kubeconfig, or in the cluster it runs in.
    Run(Box<Run>),
    /// Print the CustomResourceDefinitions and the admission policies as YAML, for kubectl apply.
    Crds,
    /// Check that the API server serves what the operator needs and permits what the operator does.
    ///
    /// Prints what is missing, and exits with status 1, if the CustomResourceDefinitions are missing or too old to list, or
    /// if the account lacks a permission of the operator. Changes nothing.
    Check(Check),
}

/// The flags of `tidings check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Namespace that the operator watches; repeatable. Default: all namespaces.
    #[arg(long = "watch-namespace", value_name = "NAMESPACE", env = "TIDINGS_WATCH_NAMESPACE", value_delimiter = ',', value_parser = namespace)]
    pub watch_namespaces: Vec<String>,

    /// The Lease of the operator.
    #[command(flatten)]
    pub lease: Lease,
}

/// The leader-election Lease.
#[derive(Debug, Args)]
pub struct Lease {
    /// Namespace of the leader-election Lease. Default: no leader election; run a single replica.
    #[arg(long, value_name = "NAMESPACE", env = "TIDINGS_LEASE_NAMESPACE", value_parser = namespace)]
    pub lease_namespace: Option<String>,

    /// Name of the leader-election Lease. Replicas with the same Lease elect one leader.
    #[arg(
        long,
        value_name = "NAME",
        env = "TIDINGS_LEASE_NAME",
        default_value = "tidings",
        requires = "lease_namespace"
    )]
    pub lease_name: String,
}

impl Lease {
    /// The namespace and the name, if there is leader election. An empty variable is none.
    pub fn named(self) -> Option<(String, String)> {
        self.lease_namespace.filter(|namespace| !namespace.is_empty()).map(|namespace| (namespace, self.lease_name))
    }
}

/// The flags of `tidings run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Namespace to watch; repeatable. Default: all namespaces.
    #[arg(long = "watch-namespace", value_name = "NAMESPACE", env = "TIDINGS_WATCH_NAMESPACE", value_delimiter = ',', value_parser = namespace)]
    pub watch_namespaces: Vec<String>,

    /// Address range to allow for webhooks and token services; repeatable. Default: public addresses only.
    #[arg(long = "egress-allow-cidr", value_name = "CIDR", env = "TIDINGS_EGRESS_ALLOW_CIDR", value_delimiter = ',', value_parser = unless_empty::<Cidr>)]
    pub egress_allow_cidrs: Vec<Option<Cidr>>,

    /// DNS name to allow for webhooks and token services; repeatable. Default: none.
    ///
    /// The name is allowed whatever addresses it resolves to. *.example.com allows every name below example.com.
    #[arg(long = "egress-allow-host", value_name = "HOST", env = "TIDINGS_EGRESS_ALLOW_HOST", value_delimiter = ',', value_parser = unless_empty::<HostPattern>)]
    pub egress_allow_hosts: Vec<Option<HostPattern>>,

    /// Address range to deny, even if another flag allows it; repeatable. Default: none.
    #[arg(long = "egress-deny-cidr", value_name = "CIDR", env = "TIDINGS_EGRESS_DENY_CIDR", value_delimiter = ',', value_parser = unless_empty::<Cidr>)]
    pub egress_deny_cidrs: Vec<Option<Cidr>>,

    /// Port to allow; repeatable. Default: all ports.
    #[arg(long = "egress-allow-port", value_name = "PORT", env = "TIDINGS_EGRESS_ALLOW_PORT", value_delimiter = ',', value_parser = port)]
    pub egress_allow_ports: Vec<Option<u16>>,

    /// IPv6 prefix of a NAT64 translator in this network (RFC 6052); repeatable. Default: none.
    ///
    /// The IPv4 address to which an address below the prefix is translated decides whether the address is allowed. The
    /// prefix 64:ff9b::/96 is always included.
    #[arg(long = "egress-nat64-prefix", value_name = "PREFIX", env = "TIDINGS_EGRESS_NAT64_PREFIX", value_delimiter = ',', value_parser = unless_empty::<Nat64Prefix>)]
    pub egress_nat64_prefixes: Vec<Option<Nat64Prefix>>,

    /// HTTP proxy for all requests to webhooks and token services. Default: no proxy.
    ///
    /// The URL has the form http://proxy.example.com:3128 or https://proxy.example.com. The operator resolves each name,
    /// judges the addresses, and requests a tunnel (CONNECT) to an allowed address. The proxy's own address need not be
    /// allowed. The variables HTTPS_PROXY and NO_PROXY have no effect.
    #[arg(long, value_name = "URL", env = "TIDINGS_EGRESS_PROXY", default_value = "", hide_default_value = true)]
    pub egress_proxy: String,

    /// File with user:password for the proxy. Default: no credentials.
    ///
    /// The operator reads the file for each connection, so a changed file takes effect without a restart.
    #[arg(long, value_name = "FILE", env = "TIDINGS_EGRESS_PROXY_CREDENTIALS_FILE")]
    pub egress_proxy_credentials_file: Option<String>,

    /// PEM file with certificate authorities to trust for an https proxy. Default: the public ones only.
    ///
    /// The operator reads the file when it starts.
    #[arg(long, value_name = "FILE", env = "TIDINGS_EGRESS_PROXY_CA_FILE")]
    pub egress_proxy_ca_file: Option<String>,

    /// Host to connect to without the proxy; repeatable. Default: none.
    ///
    /// example.com means the name and every name below it, .example.com only the names below it; addresses and ranges
    /// such as 10.0.0.0/8 also count for the addresses of names. A name or an address may have a port. The egress policy
    /// applies to these hosts as to all others.
    #[arg(long = "egress-no-proxy", value_name = "HOST", env = "TIDINGS_EGRESS_NO_PROXY", value_delimiter = ',', value_parser = unless_empty::<NoProxy>)]
    pub egress_no_proxy: Vec<Option<NoProxy>>,

    /// Let the proxy resolve names. Default: off.
    ///
    /// For networks where only the proxy can resolve names. This weakens the egress policy: it cannot judge the addresses
    /// of a name, so a name can lead to every address that the proxy reaches. Literal addresses, ports and names inside
    /// the cluster are judged as usual.
    #[arg(long, env = "TIDINGS_EGRESS_PROXY_RESOLVES")]
    pub egress_proxy_resolves: bool,

    /// DNS domain of the cluster.
    ///
    /// The operator looks up name.namespace.svc below this domain. It sends to names below this domain only if the name
    /// or the address is allowed.
    #[arg(long, value_name = "DOMAIN", env = "TIDINGS_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: ClusterDomain,

    /// Name server for webhooks and token services; repeatable. Default: name servers in /etc/resolv.conf.
    ///
    /// An address without a port uses port 53.
    #[arg(long = "dns-server", value_name = "ADDRESS", env = "TIDINGS_DNS_SERVER", value_delimiter = ',', value_parser = dns_server)]
    pub dns_servers: Vec<Option<SocketAddr>>,

    /// DNS name to send as the origin of events (WebHook-Request-Origin).
    #[arg(long, value_name = "NAME", env = "TIDINGS_ORIGIN", default_value = "tidings.dev", value_parser = origin)]
    pub origin: HeaderValue,

    /// The Lease of the operator.
    #[command(flatten)]
    pub lease: Lease,

    /// Send a Secret's values only to endpoints that the Secret's annotations allow. Default: off.
    ///
    /// The annotations are tidings.dev/allowed-hosts and, for token services, tidings.dev/allowed-token-hosts.
    #[arg(long, env = "TIDINGS_REQUIRE_SECRET_CONSENT")]
    pub require_secret_consent: bool,

    /// Seconds to keep finished Notifications created with generateName; 0 keeps them forever.
    ///
    /// Does not apply to Notifications with ttlSecondsAfterFinished. The default is 7 days.
    #[arg(long, value_name = "SECONDS", env = "TIDINGS_GENERATED_TTL", default_value_t = 604_800, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(..=31_536_000))]
    pub generated_ttl: u32,

    /// Address on which to serve /metrics.
    #[arg(long, value_name = "ADDRESS", env = "TIDINGS_ADMIN_ADDR", default_value = "127.0.0.1:8080", value_parser = address)]
    pub admin_addr: SocketAddr,

    /// Serve metrics for each Subscriber, with the labels namespace and subscriber.
    #[arg(long, value_name = "BOOL", env = "TIDINGS_SUBSCRIBER_METRICS", default_value_t = true, action = clap::ArgAction::Set)]
    pub subscriber_metrics: bool,

    /// Maximum number of Subscribers with metrics of their own.
    ///
    /// The metrics of further Subscribers are added up in series with the label subscriber="overflow".
    #[arg(long, value_name = "NUMBER", env = "TIDINGS_SUBSCRIBER_METRICS_LIMIT", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub subscriber_metrics_limit: u32,

    /// Address on which to serve /healthz and /readyz.
    #[arg(long, value_name = "ADDRESS", env = "TIDINGS_HEALTH_ADDR", default_value = "127.0.0.1:8081", value_parser = address)]
    pub health_addr: SocketAddr,

    /// Maximum number of concurrent attempts of all Subscribers.
    ///
    /// One Subscriber uses at most an eighth, one namespace at most a quarter.
    #[arg(long, value_name = "NUMBER", env = "TIDINGS_MAX_IN_FLIGHT", default_value = "1024", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_in_flight: u32,

    /// Memory for events, in MiB; at least 8.
    ///
    /// Half is for events that are being sent, half for events that wait in memory. The operator reads all other events
    /// from the API server when they are due. One Subscriber uses at most an eighth of each half, one namespace at most
    /// a quarter.
    #[arg(long = "event-memory", value_name = "MIB", env = "TIDINGS_EVENT_MEMORY", default_value = "128", value_parser = clap::value_parser!(u32).range(8..=65_536))]
    pub event_memory: u32,

    /// Number of worker threads. Default: half the number of processors, at least 1 and at most 4.
    #[arg(long, value_name = "NUMBER", env = "TIDINGS_WORKER_THREADS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub worker_threads: Option<u16>,

    /// Format of log lines.
    #[arg(long, value_enum, value_name = "FORMAT", env = "TIDINGS_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Lowest level to log: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", env = "TIDINGS_LOG_LEVEL", default_value = "info", value_parser = level)]
    pub log_level: LevelFilter,

    /// URL of the OpenTelemetry collector to which to export traces (OTLP). Default: no traces.
    ///
    /// The egress policy and the egress proxy do not apply to the collector. Headers for the collector, such as
    /// credentials, are in the variable OTEL_EXPORTER_OTLP_HEADERS.
    #[arg(long, value_name = "URL", env = "TIDINGS_OTLP_ENDPOINT", default_value = "", hide_default_value = true)]
    pub otlp_endpoint: String,

    /// Protocol of the collector: grpc or http/protobuf.
    #[arg(long, value_name = "PROTOCOL", env = "TIDINGS_OTLP_PROTOCOL", default_value = "grpc")]
    pub otlp_protocol: Protocol,

    /// PEM file with certificate authorities to trust for an https collector. Default: the public ones only.
    ///
    /// The operator reads the file when it starts.
    #[arg(long, value_name = "FILE", env = "TIDINGS_OTLP_CA_FILE")]
    pub otlp_ca_file: Option<String>,

    /// Share of attempts to trace, from 0 to 1.
    ///
    /// An event with the attribute traceparent decides itself: its attempts are traced if its trace is sampled.
    #[arg(long, value_name = "RATIO", env = "TIDINGS_TRACE_SAMPLING", default_value = "1")]
    pub trace_sampling: Sampling,
}

impl Run {
    /// The number of worker threads. A few are enough, because a delivery costs the API server many times what it costs
    /// the operator; more threads would wake each other more often than they help.
    pub fn threads(&self) -> usize {
        let half = || std::thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).clamp(1, 4));
        self.worker_threads.map_or_else(half, usize::from)
    }

    /// The settings of the export of traces (None: no export).
    ///
    /// # Errors
    /// When the endpoint is no URL of a collector, or a flag has no meaning without it.
    pub fn traces(&self) -> Result<Option<traces::ExportSettings>, InvalidTraces> {
        let ca_file = file(self.otlp_ca_file.clone());
        if self.otlp_endpoint.is_empty() {
            return if ca_file.is_some() { Err(InvalidTraces::CaAlone) } else { Ok(None) };
        }
        // Not parsed earlier, because errors of the command line quote the value, which could contain a password.
        let endpoint = self.otlp_endpoint.parse().map_err(InvalidTraces::Endpoint)?;
        let (protocol, sampling) = (self.otlp_protocol, self.trace_sampling);
        Ok(Some(traces::ExportSettings { endpoint, protocol, ca_file, sampling }))
    }
}

impl From<Run> for Settings {
    fn from(run: Run) -> Self {
        Self {
            // An empty variable is an empty list, here and for the other lists.
            watch_namespaces: named(run.watch_namespaces),
            egress_allow_cidrs: run.egress_allow_cidrs.into_iter().flatten().collect(),
            egress_allow_hosts: run.egress_allow_hosts.into_iter().flatten().collect(),
            egress_deny_cidrs: run.egress_deny_cidrs.into_iter().flatten().collect(),
            egress_allow_ports: run.egress_allow_ports.into_iter().flatten().collect(),
            egress_nat64_prefixes: run.egress_nat64_prefixes.into_iter().flatten().collect(),
            egress_proxy: ProxySettings {
                url: run.egress_proxy,
                credentials_file: file(run.egress_proxy_credentials_file),
                ca_file: file(run.egress_proxy_ca_file),
                no_proxy: run.egress_no_proxy.into_iter().flatten().collect(),
                resolves: run.egress_proxy_resolves,
            },
            cluster_domain: run.cluster_domain,
            dns_servers: run.dns_servers.into_iter().flatten().collect(),
            origin: run.origin,
            require_secret_consent: run.require_secret_consent,
            lease: run.lease.named(),
            generated_ttl: run.generated_ttl,
            admin_addr: run.admin_addr,
            subscriber_metrics: run.subscriber_metrics.then_some(run.subscriber_metrics_limit as usize),
            health_addr: run.health_addr,
            max_in_flight: run.max_in_flight as usize,
            event_bytes: (run.event_memory as usize) << 20,
        }
    }
}

/// The namespaces of a list. An empty variable is an empty list.
pub fn named(namespaces: Vec<String>) -> Vec<String> {
    namespaces.into_iter().filter(|name| !name.is_empty()).collect()
}

fn unless_empty<T: FromStr>(text: &str) -> Result<Option<T>, T::Err> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// The path of a file. An empty variable is none; the parser for paths would refuse it.
fn file(path: Option<String>) -> Option<PathBuf> {
    path.filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn port(text: &str) -> Result<Option<u16>, &'static str> {
    match text.parse() {
        _ if text.is_empty() => Ok(None),
        Ok(port) if port > 0 => Ok(Some(port)),
        _ => Err("must be a port number from 1 to 65535"),
    }
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_error| "must be an IP address and a port, for example 127.0.0.1:8080 or [::]:8080")
}

fn level(text: &str) -> Result<LevelFilter, &'static str> {
    match text.parse() {
        // The library takes numbers, and an empty text, too.
        Ok(level) if text.starts_with(|first: char| first.is_ascii_alphabetic()) => Ok(level),
        _ => Err("must be off, error, warn, info, debug or trace"),
    }
}

fn dns_server(text: &str) -> Result<Option<SocketAddr>, &'static str> {
    if text.is_empty() { Ok(None) } else { name_server(text).map(Some) }
}

/// Parses a namespace name: a DNS label (RFC 1123), or empty.
fn namespace(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || is_label(text) {
        Ok(text.to_owned())
    } else {
        Err("must be a namespace name: 1 to 63 lower-case letters, digits and hyphens")
    }
}

/// Parses an origin: a DNS name (CloudEvents web hooks, section 4.1.1).
fn origin(text: &str) -> Result<HeaderValue, &'static str> {
    let fault = "must be a DNS name, for example events.example.com";
    if text.len() > 253 || !text.split('.').all(|label| is_label(&label.to_ascii_lowercase())) {
        return Err(fault);
    }
    HeaderValue::from_str(text).map_err(|_error| fault)
}

fn is_label(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(fits) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_each_flag_of_run_has_its_variable() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        let run = command.find_subcommand("run").unwrap();
        for flag in run.get_arguments().filter(|a| a.get_long().is_some_and(|long| long != "help")) {
            let name = flag.get_long().unwrap().to_uppercase().replace('-', "_");
            assert_eq!(flag.get_env().unwrap().to_str().unwrap(), format!("TIDINGS_{name}"));
        }
    }

    #[test]
    fn the_number_of_threads_is_the_flag_or_a_few() {
        let threads = |arguments: &[&str]| {
            let cli = Cli::try_parse_from(["tidings", "run"].iter().chain(arguments)).unwrap();
            let Command::Run(flags) = cli.command else { panic!("not run") };
            flags.threads()
        };
        assert_eq!(threads(&["--worker-threads", "7"]), 7);
        assert!((1..=4).contains(&threads(&[])));
    }

    #[test]
    fn lists_may_repeat_the_flag_and_bad_values_are_rejected_with_the_name_of_the_flag() {
        let run = |arguments: &[&str]| Cli::try_parse_from(["tidings", "run"].iter().chain(arguments));
        let settings = |arguments: &[&str]| match run(arguments).unwrap().command {
            Command::Run(flags) => Settings::from(*flags),
            Command::Crds | Command::Check(_) => panic!("not run"),
        };
        let names = settings(&["--watch-namespace", "a", "--watch-namespace", "b,c"]).watch_namespaces;
        assert_eq!(names, ["a", "b", "c"]);
        let hosts = ["--egress-allow-host", "a.example,*.b.example", "--egress-allow-host", "c.example"];
        let expected = ["a.example", "*.b.example", "c.example"].map(|host| host.parse().unwrap());
        assert_eq!(settings(&hosts).egress_allow_hosts, expected);
        let servers = ["--dns-server", "10.96.0.10,[fd00::a]:5353", "--dns-server", "fd00::b"];
        let expected = ["10.96.0.10:53", "[fd00::a]:5353", "[fd00::b]:53"].map(|server| server.parse().unwrap());
        assert_eq!(settings(&servers).dns_servers, expected);
        assert_eq!(settings(&["--egress-allow-port", "443,8443"]).egress_allow_ports, [443, 8443]);
        let lists = ["egress-deny-cidr", "egress-allow-port", "egress-nat64-prefix", "dns-server"];
        let none = settings(&lists.map(|list| format!("--{list}=")).each_ref().map(String::as_str));
        assert!(none.egress_deny_cidrs.is_empty() && none.egress_allow_ports.is_empty());
        assert!(none.egress_nat64_prefixes.is_empty() && none.dns_servers.is_empty());
        let proxy =
            settings(&["--egress-proxy", "http://a.example", "--egress-no-proxy", ".svc, 10.0.0.0/8"]).egress_proxy;
        assert_eq!((proxy.url.as_str(), proxy.no_proxy.len()), ("http://a.example", 2));
        let files =
            ["--egress-proxy=", "--egress-proxy-ca-file=", "--egress-proxy-credentials-file=", "--egress-no-proxy="];
        assert_eq!(settings(&files).egress_proxy, ProxySettings::default(), "an empty variable is none");
        let empty = settings(&["--watch-namespace", "", "--egress-allow-cidr", "", "--egress-allow-host", ""]);
        assert!(empty.watch_namespaces.is_empty(), "an empty variable is an empty list");
        assert!(empty.egress_allow_cidrs.is_empty() && empty.egress_allow_hosts.is_empty());
        for bad in [
            ["--watch-namespace", "A"],
            ["--egress-allow-cidr", "10.0.0.0/40"],
            ["--egress-allow-host", "10.0.0.1"],
            ["--egress-allow-host", "https://example.com"],
            ["--egress-deny-cidr", "10.1.2.3/8"],
            ["--egress-allow-port", "0"],
            ["--egress-allow-port", "https"],
            ["--egress-nat64-prefix", "2001:db8::/33"],
            ["--egress-no-proxy", "*"],
            ["--egress-no-proxy", "https://example.com"],
            ["--cluster-domain", "10.0.0.1"],
            ["--dns-server", "kube-dns"],
            ["--origin", "a b"],
            ["--generated-ttl", "7d"],
            ["--generated-ttl", "-1"],
            ["--admin-addr", "8080"],
            ["--health-addr", "localhost:8081"],
            ["--log-level", "loud"],
            ["--log-level", "3"],
            ["--worker-threads", "0"],
            ["--subscriber-metrics", "some"],
            ["--subscriber-metrics-limit", "0"],
        ] {
            let message = run(&bad).unwrap_err().to_string();
            assert!(message.contains(bad[0]) && message.contains(bad[1]), "{message}");
        }
    }
}
