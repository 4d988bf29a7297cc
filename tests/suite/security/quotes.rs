//! S10: what the Kubernetes client would quote of an answer is kept out of the log, at TRACE too.
//!
//! The logger is one for a whole process, so each case is this test once more, in a process of its own.

use std::{env, io, process::Command};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, Config};
use serde_json::json;
use testkit::{RawServer, endpoints::read_request};
use tidings::telemetry::{self, LogFormat};
use tokio::io::AsyncWriteExt;
use tracing::level_filters::LevelFilter;

use crate::security::canary::line_with;

const CANARY: &str = "canary-in-a-broken-answer";
/// Names the case for the process that runs it.
const CASE: &str = "TIDINGS_TEST_QUOTES";

/// Requests a Secret and gets an invalid one. No real API server sends it, but a broken proxy might.
async fn read_a_broken_secret() {
    let secret = json!({"metadata": {"name": "hook"}, "data": {"key": STANDARD.encode(CANARY)}, "immutable": 1});
    let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{secret}");
    let server = RawServer::tcp(move |mut stream| {
        let answer = answer.clone();
        async move {
            read_request(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let server = server.await.unwrap();
    let config = Config::new(format!("http://{}", server.address()).parse().unwrap());
    let api = Api::<Secret>::namespaced(Client::try_from(config).unwrap(), "default");
    assert!(matches!(api.get("hook").await, Err(kube::Error::SerdeError(_))));
}

#[test]
fn s10_an_answer_of_the_api_server_that_cannot_be_read_is_not_quoted() {
    if let Ok(case) = env::var(CASE) {
        match case.as_str() {
            "text" => drop(telemetry::init(LogFormat::Text, LevelFilter::TRACE, None).unwrap()),
            "json" => drop(telemetry::init(LogFormat::Json, LevelFilter::TRACE, None).unwrap()),
            _ => tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(io::stderr).init(),
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(read_a_broken_secret());
    }
    let name = "security::quotes::s10_an_answer_of_the_api_server_that_cannot_be_read_is_not_quoted";
    for (case, quoted) in [("unfiltered", true), ("text", false), ("json", false)] {
        let mut test = Command::new(env::current_exe().unwrap());
        let output = test.args(["--exact", name, "--nocapture"]).env(CASE, case).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && log.contains("TRACE"), "{case}: {log}");
        assert_eq!(line_with(&log, CANARY).is_some(), quoted, "{case}: {log}");
    }
}
