//! What the program prints: manifests, and the error when it cannot start.

use std::{
    io,
    process::{Command, Output},
};

use crate::{cluster::root, world::binary};

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

#[test]
fn the_image_is_built_from_every_member_of_the_workspace() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
    let (manifest, ignored) = (read("Cargo.toml"), read(".dockerignore"));
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
    let members: Vec<String> = serde_json::from_str(members).unwrap();
    assert!(members.len() > 4, "{members:?}");
    for member in members {
        let folder = member.split('/').next().unwrap();
        assert!(ignored.lines().any(|line| line == format!("!{folder}")), ".dockerignore leaves out {folder}");
    }
}
