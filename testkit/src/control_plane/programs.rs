//! Builds the command lines of etcd and the API server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::control_plane::audit;
use crate::error::Result;
use crate::folder::Folder;
use crate::pki::{Authority, new_key};
use crate::process::Program;

/// The token of the administrator. It protects a control plane on loopback that exists only during a test.
pub const ADMIN_TOKEN: &str = "admin";

pub(crate) fn etcd(path: PathBuf, folder: &Folder, logs: &Path, clients: SocketAddr, peers: SocketAddr) -> Program {
    let data = folder.path().join("etcd").display().to_string();
    Program::new("etcd", path, logs.join("etcd.log")).args([
        "--log-level=warn".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        format!("--data-dir={data}"),
        format!("--listen-client-urls=http://{clients}"),
        format!("--advertise-client-urls=http://{clients}"),
        format!("--listen-peer-urls=http://{peers}"),
        format!("--initial-advertise-peer-urls=http://{peers}"),
        format!("--initial-cluster=default=http://{peers}"),
    ])
}

pub(crate) fn api_server(
    path: PathBuf,
    folder: &Folder,
    logs: &Path,
    authority: &Authority,
    address: SocketAddr,
    etcd: SocketAddr,
) -> Result<Program> {
    // Certificates of the kit: the API server spends a good part of its startup on creating default certificates.
    let identity = authority.server_identity(&["kubernetes.default.svc", "10.0.0.1"]);
    let account_key = new_key();
    let file = |name, content: &str| folder.write(name, content).map(|path| path.display().to_string());
    let args = [
        ("tls-cert-file", file("server.crt", &identity.certificate_pem)?),
        ("tls-private-key-file", file("server.key", &identity.key_pem)?),
        ("service-account-signing-key-file", file("accounts.key", &account_key.serialize_pem())?),
        ("service-account-key-file", file("accounts.pub", &account_key.public_key_pem())?),
        ("token-auth-file", file("tokens.csv", &format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))?),
        ("audit-policy-file", file("audit-policy.json", audit::POLICY)?),
        ("audit-log-path", file("audit.log", "")?),
        // In megabytes. The default is to rotate the log at 100.
        ("audit-log-maxsize", "10000".to_owned()),
        ("service-account-issuer", format!("https://{address}")),
        ("etcd-servers", format!("http://{etcd}")),
        ("cert-dir", folder.path().join("certificates").display().to_string()),
        ("bind-address", address.ip().to_string()),
        ("secure-port", address.port().to_string()),
        ("service-cluster-ip-range", "10.0.0.0/24".to_owned()),
        ("authorization-mode", "RBAC".to_owned()),
        // It would wait for the default ServiceAccount of each namespace, which the controller-manager creates.
        ("disable-admission-plugins", "ServiceAccount".to_owned()),
    ];
    Ok(Program::new("kube-apiserver", path, logs.join("kube-apiserver.log"))
        .args(args.map(|(flag, value)| format!("--{flag}={value}"))))
}

pub(crate) fn controller_manager(path: PathBuf, logs: &Path, kubeconfig: &Path, port: u16) -> Program {
    Program::new("kube-controller-manager", path, logs.join("kube-controller-manager.log")).args([
        format!("--kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        // The default is 5 minutes: a quota of a kind that the controller did not know yet is counted only then.
        "--resource-quota-sync-period=5s".to_owned(),
    ])
}

/// A kubeconfig as JSON, which is valid YAML.
pub(crate) fn kubeconfig(address: SocketAddr, ca_file: &Path, token: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": format!("https://{address}"), "certificate-authority": ca_file}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
        "current-context": "test",
    });
    format!("{config:#}\n")
}
