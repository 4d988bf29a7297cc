//! What the program prints: manifests, and the error when it cannot start.

use std::{
    io,
    process::{Command, Output},
};

use crate::world::binary;

/// Runs the program with a kubeconfig that does not exist.
fn without_cluster() -> Output {
    let mut program = Command::new(binary());
    program.args(["run", "--health-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"]);
    program.env("KUBECONFIG", "/nonexistent/config").env_remove("KUBERNETES_SERVICE_HOST").output().unwrap()
}

#[test]
fn a_reader_that_closes_the_pipe_stops_the_printing_of_the_crds_without_an_error() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let output = Command::new(binary()).arg("crds").stdout(writer).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_missing_kubeconfig_is_named_without_debug_output() {
    let output = without_cluster();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("failed to read kubeconfig from '/nonexistent/config': No such file"), "{text}");
}
