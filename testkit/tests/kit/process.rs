use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, process::Command};

use tidings_testkit::folder::Folder;
use tidings_testkit::process::{Process, Program};

const LIMIT: Duration = Duration::from_secs(10);

fn shell(folder: &Folder, script: &str) -> Program {
    Program::new("script", "/bin/sh", folder.path().join("log")).args(["-c", script])
}

/// Whether a process is alive, from its state letter in /proc. A zombie counts as dead.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state(&stat).is_some_and(|state| state != 'Z')
}

fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn output_environment_and_exit_code_are_those_of_the_program() {
    let folder = Folder::new("test").unwrap();
    let program = shell(&folder, r#"echo "$GREETING $$"; echo oops >&2; exit 3"#).env("GREETING", "hello");
    let process = Process::start(program).await.unwrap();
    assert_eq!(process.wait(LIMIT).await.unwrap(), 3);
    assert_eq!(process.log(), format!("hello {}\noops\n", process.pid()));
    assert!(process.log_tail(1).ends_with(":\noops"), "{}", process.log_tail(1));
    assert!(process.signal("TERM").await.is_err());
    process.kill().await.unwrap();
}

#[tokio::test]
async fn sigterm_lets_the_program_exit_by_itself() {
    let folder = Folder::new("test").unwrap();
    let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done";
    let process = Process::start(shell(&folder, script)).await.unwrap();
    until("up", || process.log() == "up\n").await;
    process.signal("TERM").await.unwrap();
    assert_eq!(process.wait(LIMIT).await.unwrap(), 0);
    assert_eq!(process.log(), "up\nbye\n");
}

#[tokio::test]
async fn a_stopped_program_does_nothing_until_it_is_continued() {
    let folder = Folder::new("test").unwrap();
    let process = Process::start(shell(&folder, "sleep 0.3; exit 5")).await.unwrap();
    process.signal("STOP").await.unwrap();
    let stat = || fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap_or_default();
    until("stopped", || state(&stat()) == Some('T')).await;
    assert!(process.wait(Duration::from_millis(600)).await.is_err());
    process.signal("CONT").await.unwrap();
    assert_eq!(process.wait(LIMIT).await.unwrap(), 5);
}

#[tokio::test]
async fn a_restarted_program_is_another_process_with_the_same_log() {
    let folder = Folder::new("test").unwrap();
    let mut process = Process::start(shell(&folder, "echo up; exec sleep 60")).await.unwrap();
    until("up", || process.log() == "up\n").await;
    let first = process.pid();
    process.kill().await.unwrap();
    assert_eq!(process.exit_code(), Some(137));
    assert!(!is_alive(first));
    process.restart().await.unwrap();
    assert_ne!(process.pid(), first);
    until("up again", || process.log() == "up\nup\n").await;
}

#[tokio::test]
async fn a_program_that_does_not_exist_exits_with_127_and_an_error() {
    let folder = Folder::new("test").unwrap();
    let process = Process::start(Program::new("ghost", "/no/such/program", folder.path().join("log"))).await.unwrap();
    assert_eq!(process.wait(LIMIT).await.unwrap(), 127);
    assert!(process.log().contains("not found"), "{}", process.log());
}

#[tokio::test]
async fn dropping_it_kills_the_program_its_children_and_the_folder() {
    let folder = Folder::new("test").unwrap();
    let path = folder.path().to_owned();
    let process = Process::start(shell(&folder, "sleep 60 & echo $!; wait")).await.unwrap();
    until("child", || process.log().ends_with('\n')).await;
    let (pid, child) = (process.pid(), process.log().trim().parse().unwrap());
    assert!(is_alive(pid) && is_alive(child));
    drop((process, folder));
    until("gone", || !is_alive(pid) && !is_alive(child) && !path.exists()).await;
}

/// The part of the next test that runs in the process that is killed.
async fn be_the_victim(report: &str) {
    let folder = Folder::new("victim").unwrap();
    let process = Process::start(shell(&folder, "exec sleep 60")).await.unwrap();
    let pid = process.pid();
    // Like a static, which is never dropped.
    std::mem::forget(process);
    fs::write(report, format!("{pid} {}\n", folder.path().display())).unwrap();
    std::mem::forget(folder);
    std::future::pending().await
}

#[tokio::test]
async fn nothing_outlives_a_test_process_that_is_killed() {
    if let Ok(report) = std::env::var("TESTKIT_REPORT") {
        return be_the_victim(&report).await;
    }
    let folder = Folder::new("test").unwrap();
    let report = folder.path().join("report");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::nothing_outlives_a_test_process_that_is_killed"])
        .env("TESTKIT_REPORT", &report)
        .spawn()
        .unwrap();
    let read = || fs::read_to_string(&report).unwrap_or_default();
    until("report", || read().ends_with('\n')).await;
    let report = read();
    let (pid, path) = report.trim().split_once(' ').unwrap();
    let pid = pid.parse().unwrap();
    assert!(is_alive(pid) && Path::new(path).exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    until("gone", || !is_alive(pid) && !Path::new(path).exists()).await;
}
