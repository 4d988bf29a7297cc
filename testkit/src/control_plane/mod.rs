//! Runs a real etcd and a real kube-apiserver on loopback.

mod audit;
mod kubectl;
mod programs;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::sleep;

pub use self::audit::AuditEvent;
pub use self::kubectl::{Kubectl, Output};
pub use self::programs::ADMIN_TOKEN;
use crate::binaries;
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::loopback::free_address;
use crate::pki::Authority;
use crate::process::Process;

const START_LIMIT: Duration = Duration::from_secs(60);
/// The time within which a control plane that was only paused (`STOP`) is ready again.
const REVIVAL_LIMIT: Duration = Duration::from_secs(10);
/// The number of attempts to start: another program may take a free port first.
const TRIES: u32 = 3;

static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();

/// A local control plane. Until [`ControlPlane::start_controllers`], it collects no garbage and deletes no namespaces.
///
/// Both programs are killed and the folder is removed when it is dropped or when this process ends.
#[derive(Debug)]
pub struct ControlPlane {
    // Fields are dropped in this order: the API server first, then etcd, which it needs.
    api_server: Mutex<Process>,
    etcd: Mutex<Process>,
    address: SocketAddr,
    etcd_address: SocketAddr,
    ca_file: PathBuf,
    kubectl: Kubectl,
    /// Set once a stage has installed the CustomResourceDefinitions.
    definitions: OnceCell<()>,
    folder: Folder,
}

/// A program of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// kube-apiserver.
    ApiServer,
    /// etcd.
    Etcd,
}

impl ControlPlane {
    /// Starts etcd and the API server and waits until the API server is ready.
    ///
    /// # Errors
    /// When the programs are missing (the error says how to install them) or not ready in time (the error contains the
    /// logs).
    pub async fn start() -> Result<Self> {
        Self::start_logging_to(None).await
    }

    /// The same, with the logs of both programs in this folder, where they outlive the control plane. None: the logs
    /// are in the control plane's own folder.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn start_logging_to(logs: Option<&Path>) -> Result<Self> {
        let mut tries = 1;
        loop {
            match Self::try_start(logs).await {
                Err(error) if tries < TRIES && error.to_string().contains("address already in use") => tries += 1,
                result => return result,
            }
        }
    }

    /// The control plane that all tests of a test binary share. The first caller starts it.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn shared() -> Result<&'static Self> {
        SHARED.get_or_try_init(Self::start).await
    }

    /// Starts the controller-manager: it collects garbage, deletes namespaces, counts quotas, aggregates ClusterRoles and
    /// makes Pods of Deployments, which no kubelet runs. It stops when the result is dropped.
    ///
    /// # Errors
    /// When the program is missing (the error says how to install it).
    pub async fn start_controllers(&self) -> Result<Process> {
        let (path, port) = (binaries::find("kube-controller-manager")?, free_address()?.port());
        let program = programs::controller_manager(path, self.folder.path(), self.admin_kubeconfig(), port);
        Process::start(program).await
    }

    async fn try_start(logs: Option<&Path>) -> Result<Self> {
        let (etcd, api_server) = (binaries::find("etcd")?, binaries::find("kube-apiserver")?);
        let folder = Folder::new("control-plane")?;
        let logs = logs.unwrap_or(folder.path());
        let authority = Authority::new();
        let ca_file = folder.write("ca.crt", authority.ca_pem())?;
        let address = free_address()?;
        let etcd_address = free_address()?;
        let etcd = programs::etcd(etcd, &folder, logs, etcd_address, free_address()?);
        let api_server = programs::api_server(api_server, &folder, logs, &authority, address, etcd_address)?;
        let kubeconfig =
            folder.write("admin.kubeconfig", &programs::kubeconfig(address, &ca_file, programs::ADMIN_TOKEN))?;
        let plane = Self {
            etcd: Mutex::new(Process::start(etcd).await?),
            api_server: Mutex::new(Process::start(api_server).await?),
            address,
            etcd_address,
            ca_file,
            kubectl: Kubectl::new(&kubeconfig),
            definitions: OnceCell::new(),
            folder,
        };
        plane.ready(START_LIMIT).await?;
        Ok(plane)
    }

    /// Waits until the API server reports that it is ready.
    ///
    /// # Errors
    /// When it is not ready within `limit`, or has exited: with the last lines of both logs.
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            // The port opens late during startup. Checking it first avoids starting kubectl many times.
            if TcpStream::connect(self.address).await.is_ok() {
                let args = ["get", "--raw", "/readyz", "--request-timeout=5s"];
                if self.kubectl.run(&args).await?.success {
                    return Ok(());
                }
            }
            let (api_server, etcd) = (self.api_server.lock().await, self.etcd.lock().await);
            let exited = api_server.exit_code().is_some() || etcd.exit_code().is_some();
            if exited || Instant::now() > end {
                let what = if exited { "exited" } else { "is not ready" };
                let (api_server, etcd) = (api_server.log_tail(15), etcd.log_tail(15));
                return Err(Error::new(format!("the control plane {what}\n{api_server}\n{etcd}")));
            }
            drop((api_server, etcd));
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The URL of the API server, `https://127.0.0.1:…`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The address of the API server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address on which etcd serves its clients over plain HTTP.
    #[must_use]
    pub fn etcd_address(&self) -> SocketAddr {
        self.etcd_address
    }

    /// The certificate of the CA that issued the API server's certificate.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The folder of this control plane, for logs, kubeconfigs and files of a test.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A kubeconfig with all permissions.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> &Path {
        self.kubectl.kubeconfig()
    }

    /// Writes a kubeconfig with a bearer token, for example of a ServiceAccount (`kubectl create token`).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn kubeconfig_for_token(&self, name: &str, token: &str) -> Result<PathBuf> {
        self.folder.write(&format!("{name}.kubeconfig"), &programs::kubeconfig(self.address, &self.ca_file, token))
    }

    /// Writes a kubeconfig for a proxy in front of the API server, at this address and with a certificate of the
    /// authority in this file. Without a token, it has all permissions.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn kubeconfig_through(
        &self,
        name: &str,
        address: SocketAddr,
        ca_file: &Path,
        token: Option<&str>,
    ) -> Result<PathBuf> {
        let token = token.unwrap_or(programs::ADMIN_TOKEN);
        self.folder.write(&format!("{name}.kubeconfig"), &programs::kubeconfig(address, ca_file, token))
    }

    /// kubectl with all permissions.
    #[must_use]
    pub fn admin(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Runs kubectl with all permissions; see [`Kubectl::run`].
    ///
    /// # Errors
    /// As [`Kubectl::run`].
    pub async fn kubectl(&self, args: &[&str]) -> Result<Output> {
        self.kubectl.run(args).await
    }

    /// Every request that the API server has answered so far, oldest first.
    ///
    /// An entry may be written shortly after the response: before a test counts entries, it must wait for the expected
    /// ones.
    ///
    /// # Errors
    /// When the audit log cannot be read.
    pub async fn audit(&self) -> Result<Vec<AuditEvent>> {
        let log = self.folder.path().join("audit.log");
        tokio::task::spawn_blocking(move || audit::read(&log)).await.map_err(|error| Error::new(error.to_string()))?
    }

    /// Sends a signal (`STOP`, `CONT`, `KILL`) to one of the programs.
    ///
    /// # Errors
    /// When the program has exited.
    pub async fn signal(&self, part: Part, signal: &str) -> Result<()> {
        self.part(part).lock().await.signal(signal).await
    }

    /// Kills one of the programs if it is running, starts it again on the same port with the same data, and waits until
    /// the API server is ready.
    ///
    /// # Errors
    /// As [`ControlPlane::ready`].
    pub async fn restart(&self, part: Part) -> Result<()> {
        self.part(part).lock().await.restart().await?;
        self.ready(START_LIMIT).await
    }

    /// [`ControlPlane::restart`] for the API server.
    ///
    /// # Errors
    /// As [`ControlPlane::ready`].
    pub async fn restart_api_server(&self) -> Result<()> {
        self.restart(Part::ApiServer).await
    }

    /// Makes sure that both programs run and the API server is ready, whether they were paused, killed, or neither.
    ///
    /// # Errors
    /// As [`ControlPlane::ready`].
    pub async fn revive(&self) -> Result<()> {
        for part in [Part::Etcd, Part::ApiServer] {
            let process = self.part(part).lock().await;
            // A program that has exited is not an error here.
            let _ = process.signal("CONT").await;
        }
        if self.ready(REVIVAL_LIMIT).await.is_ok() {
            return Ok(());
        }
        for part in [Part::Etcd, Part::ApiServer] {
            self.part(part).lock().await.restart().await?;
        }
        self.ready(START_LIMIT).await
    }

    /// Kills one of the programs and starts it again `after` this time, without waiting until it is ready.
    ///
    /// # Errors
    /// When it cannot be killed or started.
    pub async fn kill_for(&self, part: Part, after: Duration) -> Result<()> {
        // The lock is held all the time, so that nothing else restarts the program.
        let mut process = self.part(part).lock().await;
        process.kill().await?;
        sleep(after).await;
        process.restart().await
    }

    /// The process ids of the API server and of etcd.
    pub async fn pids(&self) -> [u32; 2] {
        [self.api_server.lock().await.pid(), self.etcd.lock().await.pid()]
    }

    /// Set once the CustomResourceDefinitions are installed.
    pub(crate) fn definitions(&self) -> &OnceCell<()> {
        &self.definitions
    }

    fn part(&self, part: Part) -> &Mutex<Process> {
        match part {
            Part::ApiServer => &self.api_server,
            Part::Etcd => &self.etcd,
        }
    }
}
