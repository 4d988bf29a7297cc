//! Generated files equal what generates them. `make generate` regenerates them.

use std::{collections::BTreeSet, env, fs, path::Path};

use crate::{
    architecture,
    docs::{chart_values, messages, reference},
};

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
fn golden_reasons_are_what_the_catalogue_says() {
    check("docs/reasons.md", &reference::reasons());
}

#[test]
fn golden_conformance_lists_tests_that_exist() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md")).unwrap();
    let tests =
        ["delivery/conformance", "delivery/gates", "delivery/outcomes", "delivery/signatures", "subscribers/handshake"]
            .map(|file| fs::read_to_string(format!("{}/tests/suite/{file}.rs", env!("CARGO_MANIFEST_DIR"))).unwrap())
            .concat();
    let is_row = |name: &str| ["webhook_", "binding_", "signature_"].iter().any(|row| name.starts_with(row));
    let named: Vec<_> = page.split('`').filter(|word| is_row(word)).collect();
    assert!(named.len() >= 44, "{named:?}");
    for test in &named {
        assert!(
            tests.contains(&format!("async fn {test}(")) || tests.contains(&format!("fn {test}(")),
            "no test {test}"
        );
    }
    for line in tests.lines().filter_map(|line| line.trim_start().trim_start_matches("async ").strip_prefix("fn ")) {
        let name = line.split('(').next().unwrap();
        assert!(!is_row(name) || named.contains(&name), "docs/conformance.md does not list {name}");
    }
}

#[test]
fn golden_field_lists_every_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/field.md")).unwrap();
    let is_test =
        |name: &str| name.strip_prefix("field_").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let listed: BTreeSet<_> = page.split('`').filter(|word| is_test(word)).map(str::to_owned).collect();
    let written: BTreeSet<_> = ["src", "crates", "tests/suite"]
        .iter()
        .flat_map(|folder| architecture::files(&root.join(folder)))
        .flat_map(|file| {
            let text = fs::read_to_string(file).unwrap();
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next().map(str::to_owned));
            names.filter(|name| is_test(name)).collect::<Vec<_>>()
        })
        .collect();
    assert!(listed == written && !listed.is_empty(), "docs/field.md: {listed:?}, the tests: {written:?}");
}

#[test]
fn golden_security_lists_every_proof_and_each_row_that_has_to_have_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let is_proof = |name: &str| {
        let (row, rest) = name.split_at_checked(3).unwrap_or_default();
        row.starts_with('s') && row[1..].bytes().all(|b| b.is_ascii_digit()) && rest.starts_with('_')
    };
    let listed: BTreeSet<_> = page.split('`').filter(|word| is_proof(word)).map(str::to_owned).collect();
    let written: BTreeSet<_> = ["src", "crates", "tests/suite"]
        .iter()
        .flat_map(|folder| architecture::files(&root.join(folder)))
        .flat_map(|file| {
            let text = fs::read_to_string(file).unwrap();
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next().map(str::to_owned));
            names.filter(|name| is_proof(name)).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(listed, written);
    for row in (1..=12).chain([15, 17, 19, 20, 21, 23, 24, 27]) {
        let prefix = format!("s{row:02}_");
        assert!(listed.iter().any(|name| name.starts_with(&prefix)), "no proof of S{row}");
    }
}

#[test]
fn golden_api_reference_is_what_the_schemas_say() {
    check("docs/api.md", &reference::page());
}

#[test]
fn golden_messages_are_what_the_source_says() {
    check("docs/messages.md", &messages::page());
}

#[test]
fn golden_the_readme_of_the_chart_has_each_value() {
    check("charts/tidings/README.md", &chart_values::readme());
}

/// `make jaeger` writes the page, and `make test` does not run Jaeger.
#[test]
fn golden_jaeger_report_is_of_the_version_in_its_module() {
    let read = |file: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let (module, page) = (read("tools/jaeger/go.mod"), read("docs/jaeger.md"));
    let version = module.lines().find_map(|line| line.trim().strip_prefix("github.com/jaegertracing/jaeger v"));
    let version = version.unwrap().split(' ').next().unwrap();
    assert!(page.contains(&format!("builds Jaeger {version},")), "run make jaeger");
}

/// `make keycloak` writes the page, and `make test` does not run Keycloak.
#[test]
fn golden_keycloak_report_is_of_the_version_in_the_makefile() {
    let read = |file: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let (makefile, page) = (read("Makefile"), read("docs/keycloak.md"));
    let version = makefile.lines().find_map(|line| line.strip_prefix("KEYCLOAK_VERSION := ")).unwrap();
    assert!(page.contains(&format!("# Test report: Keycloak {version}\n")), "run make keycloak");
}
