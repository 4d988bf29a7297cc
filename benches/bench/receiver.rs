//! The receiver and the token service, in a process of their own: they write down what arrives, and when.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::Method;
use serde_json::{Value, json};
use testkit::{
    Authority, Behaviour, Client, TokenService,
    endpoints::{Answer, Endpoint, HttpsServer, Reply, Request, TokenBook},
    folder::Folder,
    process::{Process, Program},
};
use tokio::time::sleep;

/// The id and the secret of the OAuth client.
pub const CLIENT: (&str, &str) = ("bench", "s3cr3t-for-the-bench");
/// The path of an endpoint that takes the request and never answers.
const DEAD: &str = "/dead";
/// The path of an endpoint that answers after [`SLOW_ANSWER`].
const SLOW: &str = "/slow";
/// How long the slow endpoint takes.
const SLOW_ANSWER: Duration = Duration::from_secs(30);
/// The path of a token service that takes the request and never answers.
const HANGING_TOKENS: &str = "/hanging";

/// What arrives at all, arrives within this.
const PATIENCE: Duration = Duration::from_secs(120);

/// The process, as the bench sees it.
pub struct Receiver {
    _process: Process,
    folder: Folder,
    settings: Value,
}

/// An event that arrived.
pub struct Arrival {
    /// Its id.
    pub id: String,
    /// When its head was here, since the epoch.
    pub at: Duration,
}

impl Receiver {
    /// Starts the process and waits until it serves.
    pub async fn start() -> Self {
        let folder = Folder::new("bench-receiver").unwrap();
        let program = Program::new("receiver", std::env::current_exe().unwrap(), folder.path().join("receiver.log"))
            .args(["receiver", folder.path().to_str().unwrap()]);
        let process = Process::start(program).await.unwrap();
        let file = folder.path().join("receiver.json");
        while !file.exists() {
            assert!(process.exit_code().is_none(), "{}", process.log());
            sleep(Duration::from_millis(20)).await;
        }
        let settings = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        Self { _process: process, folder, settings }
    }

    /// The certificate that its own are from.
    pub fn ca_pem(&self) -> &str {
        self.settings["ca"].as_str().unwrap()
    }

    /// The token service.
    pub fn token_url(&self) -> &str {
        self.settings["tokens"].as_str().unwrap()
    }

    /// The webhook that writes down what arrives for `name`.
    pub fn webhook(&self, name: &str) -> String {
        format!("https://{}/ok/{name}", self.webhook_address())
    }

    /// A webhook that never answers.
    pub fn dead_webhook(&self) -> String {
        format!("https://{}{DEAD}", self.webhook_address())
    }

    /// A webhook that takes 30 seconds for each answer.
    pub fn slow_webhook(&self) -> String {
        format!("https://{}{SLOW}", self.webhook_address())
    }

    /// The address of all webhooks.
    pub fn webhook_address(&self) -> &str {
        self.settings["webhook"].as_str().unwrap()
    }

    /// A token service that never answers.
    pub fn hanging_token_url(&self) -> &str {
        self.settings["hanging"].as_str().unwrap()
    }

    /// What arrived for `name`.
    pub fn arrivals(&self, name: &str) -> Vec<Arrival> {
        let text = fs::read_to_string(log(self.folder.path(), name)).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete
            .lines()
            .map(|line| {
                let (at, id) = line.split_once(' ').unwrap();
                Arrival { id: id.to_owned(), at: Duration::from_nanos(at.parse().unwrap()) }
            })
            .collect()
    }

    /// Waits for the first arrival for `name`.
    pub async fn first(&self, name: &str) -> Duration {
        let (path, end) = (log(self.folder.path(), name), Instant::now() + PATIENCE);
        while fs::metadata(&path).map_or(0, |file| file.len()) == 0 {
            assert!(Instant::now() < end, "nothing arrived for {name} within {PATIENCE:?}");
            sleep(Duration::from_millis(1)).await;
        }
        // Lines are written whole.
        self.arrivals(name)[0].at
    }
}

fn log(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("arrivals-{name}"))
}

/// The clock of both processes.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// The OAuth client that Subscribers use.
pub fn oauth_client() -> Client {
    Client::new(CLIENT.0, CLIENT.1)
}

/// What the process does.
pub async fn serve(folder: &Path) {
    let authority = Authority::new();
    let tokens = TokenService::start(&authority).await.unwrap();
    tokens.register(oauth_client());
    tokens.answer_always_at(HANGING_TOKENS, Behaviour::hang());
    let webhook = Webhook { tokens: tokens.tokens().clone(), folder: folder.to_owned(), logs: Mutex::new(Vec::new()) };
    let server = HttpsServer::start(Arc::new(webhook), authority.server_config(&[])).await.unwrap();
    let settings = json!({
        "ca": authority.ca_pem(), "tokens": tokens.url(), "hanging": tokens.url_of(HANGING_TOKENS),
        "webhook": server.address().to_string(),
    });
    fs::write(folder.join("new"), settings.to_string()).unwrap();
    fs::rename(folder.join("new"), folder.join("receiver.json")).unwrap();
    std::future::pending().await
}

struct Webhook {
    tokens: TokenBook,
    folder: PathBuf,
    logs: Mutex<Vec<(String, File)>>,
}

impl Endpoint for Webhook {
    async fn answer(&self, request: Request) -> Answer {
        if request.method != Method::POST {
            return Answer::Reply(Reply::status(204).header("allow", "OPTIONS, POST"));
        }
        let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        let token = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if token.and_then(|token| self.tokens.check(token)).is_none() {
            return Answer::Reply(Reply::status(401));
        }
        if request.path == DEAD {
            return Answer::Hang;
        }
        if request.path == SLOW {
            sleep(SLOW_ANSWER).await;
            return Answer::Reply(Reply::status(204));
        }
        self.write_down(&request);
        Answer::Reply(Reply::status(204))
    }
}

impl Webhook {
    /// One line in the file of its path: nanoseconds and the event's id.
    fn write_down(&self, request: &Request) {
        let name = request.path.rsplit('/').next().unwrap();
        let event: Value = serde_json::from_slice(&request.body).unwrap();
        let at = request.arrived_at.duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let line = format!("{at} {}\n", event["id"].as_str().unwrap());
        let mut logs = self.logs.lock().unwrap();
        let known = logs.iter().position(|(path, _)| path == name);
        let known = known.unwrap_or_else(|| {
            let file = File::options().create(true).append(true).open(log(&self.folder, name)).unwrap();
            logs.push((name.to_owned(), file));
            logs.len() - 1
        });
        logs[known].1.write_all(line.as_bytes()).unwrap();
    }
}
