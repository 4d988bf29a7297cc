//! Runs a name server on loopback that answers as a test specifies, records each question, and can stay silent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::{Error, Result};

/// How long the thread waits for a question before it checks whether it must stop.
const TICK: Duration = Duration::from_millis(20);

const A: u16 = 1;
const AAAA: u16 = 28;

/// The answer to a question for a name.
#[derive(Clone, Debug)]
pub enum NameAnswer {
    /// These addresses, with this TTL in seconds.
    Addresses(Vec<IpAddr>, u32),
    /// The name does not exist.
    NoSuchName,
    /// No answer, as if the question were lost.
    Silence,
}

impl NameAnswer {
    /// One address with a TTL of zero.
    #[must_use]
    pub fn address(address: impl Into<IpAddr>) -> Self {
        Self::Addresses(vec![address.into()], 0)
    }
}

/// A name server over UDP. Dropping it closes its port.
pub struct NameServer {
    address: SocketAddr,
    questions: Arc<Mutex<Vec<String>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// Starts a server that answers questions for the addresses of a name with `answer`. The name is in lower case,
    /// without the trailing dot.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn start(answer: impl Fn(&str) -> NameAnswer + Send + 'static) -> Result<Self> {
        let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| {
            socket.set_read_timeout(Some(TICK))?;
            Ok((socket.local_addr()?, socket))
        });
        let (address, socket) =
            bound.map_err(|error| Error::new(format!("cannot open a UDP port on loopback: {error}")))?;
        let (questions, stopped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (noted, until) = (Arc::clone(&questions), Arc::clone(&stopped));
        let thread = thread::spawn(move || {
            let mut packet = [0; 1500];
            while !until.load(Ordering::Relaxed) {
                let Ok((length, peer)) = socket.recv_from(&mut packet) else {
                    continue;
                };
                let Some(question) = Question::read(&packet[..length]) else {
                    continue;
                };
                noted.lock().unwrap().push(question.name.clone());
                if let Some(reply) = question.reply(&answer(&question.name)) {
                    // The client may have gone away.
                    let _ = socket.send_to(&reply, peer);
                }
            }
        });
        Ok(Self { address, questions, stopped, thread: Some(thread) })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The names of all questions so far, in lower case. A name is queried once for each address family.
    #[must_use]
    pub fn questions(&self) -> Vec<String> {
        self.questions.lock().unwrap().clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A question for one type of record (RFC 1035, section 4.1).
struct Question {
    id: [u8; 2],
    /// The question section as received: name, type and class.
    section: Vec<u8>,
    name: String,
    kind: u16,
}

impl Question {
    fn read(packet: &[u8]) -> Option<Self> {
        let (id, mut rest) = (packet.get(..2)?, packet.get(12..)?);
        let mut labels = Vec::new();
        loop {
            let (length, tail) = rest.split_first()?;
            if *length == 0 {
                rest = tail;
                break;
            }
            let (label, tail) = tail.split_at_checked(usize::from(*length))?;
            labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
            rest = tail;
        }
        let kind = u16::from_be_bytes(rest.get(..2)?.try_into().ok()?);
        let section = packet[12..packet.len() - rest.len() + 4].to_vec();
        Some(Self { id: id.try_into().ok()?, section, name: labels.join("."), kind })
    }

    fn reply(&self, answer: &NameAnswer) -> Option<Vec<u8>> {
        let (code, addresses, life) = match answer {
            NameAnswer::Silence => return None,
            NameAnswer::NoSuchName => (3, [].as_slice(), 0),
            NameAnswer::Addresses(addresses, life) => (0, addresses.as_slice(), *life),
        };
        let of_kind = addresses.iter().filter_map(|address| match (self.kind, address) {
            (A, IpAddr::V4(v4)) => Some(v4.octets().to_vec()),
            (AAAA, IpAddr::V6(v6)) => Some(v6.octets().to_vec()),
            _ => None,
        });
        let of_kind: Vec<_> = of_kind.collect();
        // A response to a recursive question, from a recursive server.
        let mut reply = [&self.id[..], &[0x81, 0x80 | code, 0, 1, 0, of_kind.len() as u8, 0, 0, 0, 0]].concat();
        reply.extend(&self.section);
        for octets in of_kind {
            reply.extend([0xc0, 12]); // the name of the question
            reply.extend(self.kind.to_be_bytes());
            reply.extend([0, 1]);
            reply.extend(life.to_be_bytes());
            reply.extend([0, octets.len() as u8]);
            reply.extend(octets);
        }
        Some(reply)
    }
}
