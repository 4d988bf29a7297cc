//! S10: a panic says where, never what. Its message may quote a value, and the value may be a secret.
//!
//! The hook is one for a whole process, so each case has a process of its own: the operator's, or this test's once
//! more.

use std::{
    process::{Command, Output},
    thread,
};

use tidings::{
    operator,
    telemetry::{self, LogFormat},
};
use tracing::level_filters::LevelFilter;

use crate::world::binary;

const CANARY: &str = "canary-in-a-panic";
/// Names the case for the process that runs it.
const CASE: &str = "TIDINGS_TEST_PANICS";
/// A stack that no system has: Tokio panics for want of a thread, and quotes what the system says.
const STACK: usize = 1 << 60;
/// With these words.
const QUOTE: &str = "OS can't spawn worker thread";

/// All that a process has printed.
fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What a test of this module prints in a process of its own, where the hook is the standard library's at first.
fn this_test(name: &str, case: &str) -> String {
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", &format!("security::panics::{name}"), "--nocapture"]).env(CASE, case);
    let output = test.output().unwrap();
    assert!(output.status.success(), "{case}: {}", printed(&output));
    printed(&output)
}

fn panic_in_threads_and_tasks() {
    let bodies: [(_, fn()); 2] = [
        ("formats", || panic!("the token is {CANARY}")),
        ("unwraps", || assert_eq!(CANARY.parse::<u8>().map_err(|_error| CANARY).unwrap(), 0)),
    ];
    for (name, body) in bodies {
        thread::Builder::new().name(name.into()).spawn(body).unwrap().join().unwrap_err();
    }
    let work = async {
        tokio::spawn(async { panic!("{CANARY}") }).await.unwrap_err();
        panic!("{CANARY}")
    };
    // As the program works: it ends by the panic of its own task.
    thread::spawn(|| operator::in_workers::<()>(1, work)).join().unwrap_err();
}

#[test]
fn s10_a_panic_in_any_thread_says_where_and_never_what() {
    if let Ok(case) = std::env::var(CASE) {
        if case != "std" {
            telemetry::log_panics();
        }
        match case.as_str() {
            "text" => drop(telemetry::init(LogFormat::Text, LevelFilter::TRACE, None).unwrap()),
            "json" => drop(telemetry::init(LogFormat::Json, LevelFilter::TRACE, None).unwrap()),
            _ => {}
        }
        return panic_in_threads_and_tasks();
    }
    let name = "s10_a_panic_in_any_thread_says_where_and_never_what";
    assert_eq!(this_test(name, "std").matches(CANARY).count(), 4, "the standard library's hook shows it");
    for case in ["unlogged", "text", "json"] {
        let printed = this_test(name, case);
        assert!(!printed.contains(CANARY), "{case}: {printed}");
        assert_eq!(printed.matches("tests/suite/security/panics.rs:").count(), 4, "{case}: {printed}");
        assert!(printed.contains("formats") && printed.contains("unwraps"), "{case}: {printed}");
    }
}

#[test]
fn s10_a_panic_of_the_program_itself_says_where_and_never_what() {
    if std::env::var(CASE).is_ok() {
        let runtime = || drop(tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK).build());
        thread::spawn(runtime).join().unwrap_err();
        return;
    }
    let quoted = this_test("s10_a_panic_of_the_program_itself_says_where_and_never_what", "std");
    assert!(quoted.contains(QUOTE), "the standard library's hook shows it: {quoted}");
    for format in ["text", "json"] {
        let mut operator = Command::new(binary());
        operator.args(["run", "--log-format", format, "--log-level", "trace"]).env("KUBECONFIG", "/dev/null");
        let output = operator.env("RUST_MIN_STACK", STACK.to_string()).output().unwrap();
        let printed = printed(&output);
        assert_eq!(output.status.code(), Some(101), "it panicked: {printed}");
        assert!(printed.contains("a panic") && printed.contains("tokio") && printed.contains("main"), "{printed}");
        assert!(!printed.contains(QUOTE) && !printed.contains("os error"), "{format}: {printed}");
    }
}
