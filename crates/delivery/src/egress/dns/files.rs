//! Parses the system's `resolv.conf` and `hosts` files. Parsing is pure.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// The maximum number of name servers, as in the C library.
const MOST_SERVERS: usize = 3;
/// The port of a name server.
pub(super) const PORT: u16 = 53;

/// The paths of the files.
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

/// Parses the name servers in a `resolv.conf`. The rest is ignored: names are absolute, so there is no search list, and
/// the operator has its own timeouts.
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
    /// Parses the text of the file. Invalid lines are ignored.
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

    /// Returns the addresses of an absolute name in lower case.
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
