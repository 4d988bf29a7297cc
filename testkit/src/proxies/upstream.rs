//! Sends requests to the API server without the operator's client: HTTP/1.1 over TLS, with connections that are reused.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, Result};

/// A request with its whole body.
pub(super) type Request = http::Request<Full<Bytes>>;

/// A server and the connections to it. Each request uses its own connection, which is reused after the response was
/// read.
pub struct Upstream {
    address: SocketAddr,
    tls: TlsConnector,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Upstream {
    /// A server at this address, whose certificate for the IP address was issued by the authority in this file.
    ///
    /// # Errors
    /// When the file contains no certificate.
    pub fn new(address: SocketAddr, ca_file: &Path) -> Result<Self> {
        let ca = CertificateDer::from_pem_file(ca_file)
            .map_err(|error| Error::new(format!("cannot read {}: {error}", ca_file.display())))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca).map_err(|error| Error::new(error.to_string()))?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { address, tls: Arc::new(config).into(), idle: Mutex::default() })
    }

    /// Sends one request and returns the response. The caller must read its body.
    ///
    /// # Errors
    /// When the server cannot be reached, or the connection ends without a response.
    pub async fn send(&self, request: Request) -> Result<http::Response<Incoming>> {
        let mut sender = match self.take_idle() {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let answer = sender.send_request(request).await.map_err(|error| Error::new(error.to_string()))?;
        self.idle.lock().unwrap().push(sender);
        Ok(answer)
    }

    /// Takes a connection whose last response was read to the end.
    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap();
        idle.retain(|sender| !sender.is_closed());
        let ready = idle.iter().position(SendRequest::is_ready)?;
        Some(idle.swap_remove(ready))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let stream = self.tls.connect(name, stream).await?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| Error::new(error.to_string()))?;
        // The requests on this connection report its errors.
        tokio::spawn(connection);
        Ok(sender)
    }
}
