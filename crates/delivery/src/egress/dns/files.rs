//! The two files of the system that say how names are resolved: `resolv.conf` and `hosts`. Parsing is pure.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// More name servers than this are not used, as in the C library.
const MOST_SERVERS: usize = 3;
/// The port of a name server.
pub(super) const PORT: u16 = 53;

/// Where the files are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) resolv_conf: PathBuf,
    pub(super) hosts: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() }
    }
}

/// The name servers of a `resolv.conf`. Nothing else in it counts: names are absolute, so there is nothing to search, and
/// the time-outs are the operator's own.
pub(super) fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        Some(SocketAddr::new(address.parse().ok()?, PORT))
    });
    servers.take(MOST_SERVERS).collect()
}

/// The addresses of names in a `hosts` file.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    /// Reads the file's text. A line that cannot be read means nothing.
    pub(super) fn parse(text: &str) -> Self {
        let mut hosts = HashMap::<_, Vec<_>>::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
                continue;
            };
            for name in words {
                let addresses = hosts.entry(name.trim_end_matches('.').to_ascii_lowercase()).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Self(hosts)
    }

    /// The addresses of an absolute name in lower case.
    pub(super) fn addresses(&self, name: &str) -> Option<&[IpAddr]> {
        self.0.get(name.trim_end_matches('.')).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_resolv_conf_the_first_three_name_servers_count_and_nothing_else() {
        let text = "# a comment\nsearch tidings-system.svc.cluster.local svc.cluster.local\noptions ndots:5 timeout:30\n\
                    nameserver 10.96.0.10\n nameserver\tfd00::a # one more\nnameserver soon\nnameserver\n\
                    nameservers 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3";
        let expected = ["10.96.0.10:53", "[fd00::a]:53", "10.0.0.2:53"].map(|server| server.parse().unwrap());
        assert_eq!(servers(text), expected);
        assert!(servers("").is_empty());
    }

    #[test]
    fn hosts_are_found_by_each_of_their_names_in_any_case() {
        let text = "127.0.0.1 localhost\n::1\tlocalhost ip6-localhost # loopback\nnot-an-address a.example\n\n\
                    10.1.2.3 Hooks.Example.com. hooks # twice\n10.1.2.3 hooks\n";
        let hosts = Hosts::parse(text);
        let found = |name| hosts.addresses(name).map(<[IpAddr]>::to_vec);
        let addresses = |texts: &[&str]| Some(texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>());
        assert_eq!(found("localhost."), addresses(&["127.0.0.1", "::1"]));
        assert_eq!(found("hooks.example.com."), addresses(&["10.1.2.3"]));
        assert_eq!(found("hooks"), addresses(&["10.1.2.3"]));
        assert_eq!(found("a.example."), None);
        assert_eq!(found("loopback."), None);
    }
}
