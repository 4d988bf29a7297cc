//! Tests `Operator` with a shell script instead of the operator, which has its own tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tidings_testkit::Operator;
use tidings_testkit::folder::Folder;

use crate::process::until;

/// Writes the script in another process: if this process had it open for writing while another test forks, running it
/// would fail with "text file busy".
pub(crate) fn program(folder: &Folder, script: &str) -> PathBuf {
    let path = folder.path().join("operator");
    let write = r##"printf '#!/bin/sh\n%s\n' "$1" >"$2" && chmod +x "$2""##;
    let status = Command::new("sh").args(["-c", write, "write", script]).arg(&path).status().unwrap();
    assert!(status.success());
    path
}

#[tokio::test]
async fn it_runs_with_the_arguments_and_the_environment_it_is_given() {
    let folder = Folder::new("test").unwrap();
    let script = r#"echo "$KUBECONFIG $EXTRA $*"; trap 'exit 0' TERM; while :; do sleep 0.01; done"#;
    let program = program(&folder, script);
    let mut operator = Operator::start(&program, Path::new("/config"), &["--a", "b"], &[("EXTRA", "c")]).await.unwrap();
    let (admin, health) = (operator.admin_address(), operator.health_address());
    let line = format!("/config c run --admin-addr {admin} --health-addr {health} --a b\n");
    until("started", || operator.logs() == line).await;
    operator.kill().await.unwrap();
    operator.restart().await.unwrap();
    until("started again", || operator.logs() == line.repeat(2)).await;
    assert_eq!(operator.terminate().await.unwrap(), 0);
}

#[tokio::test]
async fn an_operator_that_exits_early_is_not_waited_for() {
    let folder = Folder::new("test").unwrap();
    let program = program(&folder, "echo no cluster; exit 4");
    let operator = Operator::start(&program, Path::new("/config"), &[], &[]).await.unwrap();
    let error = operator.ready(Duration::from_secs(30)).await.unwrap_err().to_string();
    assert!(error.contains("exited with code 4") && error.contains("no cluster"), "{error}");
}
