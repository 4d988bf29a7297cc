//! Generated files equal what generates them. `make generate` writes them anew.

use std::{env, fs, path::Path};

use crate::reference;

fn check(file: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if env::var_os("TIDINGS_UPDATE_GOLDEN").is_some() {
        fs::write(&path, generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let line = committed.lines().zip(generated.lines()).position(|(a, b)| a != b);
    assert!(committed == generated, "{file} is stale (first at line {line:?}): run make generate");
}

fn crds() -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidings")).arg("crds").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn golden_crds_are_what_the_program_prints() {
    check("crds/tidings.dev.yaml", &crds());
}

#[test]
fn golden_api_reference_is_what_the_schemas_say() {
    check("docs/api.md", &reference::page());
}
