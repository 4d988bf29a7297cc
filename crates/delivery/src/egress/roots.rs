//! The public certificate authorities: those of the system, or the compiled-in ones if the system has none.

use std::{env, sync::OnceLock};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, Der, TrustAnchor},
};
use tracing::{info, warn};

/// The variables that name authorities to trust instead of the system's.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// `SSL_CERT_FILE` or `SSL_CERT_DIR` is set, but contains no certificate authority.
///
/// The operator then trusts none: an administrator who sets the variable wants to trust fewer authorities, and not all
/// after a typo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "SSL_CERT_FILE or SSL_CERT_DIR is set, but no certificate can be read there: correct the variable, or unset it to trust the system's certificate authorities"
)]
pub struct NoRoots;

/// Reads the public authorities, if they were not read yet.
///
/// They are read once for the life of the process; this call reports a fault at startup.
pub fn load_public_roots() -> Result<(), NoRoots> {
    anchors().as_ref().map(drop).map_err(|error| *error)
}

/// Returns the public authorities without copying them.
pub(super) fn public_roots() -> RootCertStore {
    let anchors = anchors().as_deref().unwrap_or_default();
    RootCertStore { roots: anchors.iter().map(borrowed).collect() }
}

fn anchors() -> &'static Result<Vec<TrustAnchor<'static>>, NoRoots> {
    static ANCHORS: OnceLock<Result<Vec<TrustAnchor<'static>>, NoRoots>> = OnceLock::new();
    ANCHORS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            warn!(%error, "cannot read some certificate authorities; they are not trusted");
        }
        let named = VARIABLES.iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
        choose(found.certs, named)
    })
}

/// Chooses the authorities to trust among those `found`. `named`: an administrator named where to find them.
fn choose(found: Vec<CertificateDer<'static>>, named: bool) -> Result<Vec<TrustAnchor<'static>>, NoRoots> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found);
    let source = match (store.is_empty(), named) {
        (false, true) => "SSL_CERT_FILE and SSL_CERT_DIR",
        (false, false) => "the system",
        (true, true) => return Err(NoRoots),
        (true, false) => {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().map(borrowed));
            "this program"
        }
    };
    info!(count = store.len(), "trusting the certificate authorities of {source}");
    Ok(store.roots)
}

fn borrowed(anchor: &'static TrustAnchor<'static>) -> TrustAnchor<'static> {
    TrustAnchor {
        subject: Der::from_slice(&anchor.subject),
        subject_public_key_info: Der::from_slice(&anchor.subject_public_key_info),
        name_constraints: anchor.name_constraints.as_deref().map(Der::from_slice),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn a_system_without_authorities_falls_back_on_those_compiled_in() {
        let anchors = choose(Vec::new(), false).unwrap();
        assert!(anchors.len() > 100, "{}", anchors.len());
    }

    #[test]
    fn authorities_that_are_found_are_trusted_alone() {
        let authority = testkit::Authority::new();
        let certificate = CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap();
        for named in [true, false] {
            assert_eq!(choose(vec![certificate.clone()], named).unwrap().len(), 1);
        }
    }

    #[test]
    fn a_place_that_was_named_and_holds_no_authority_is_an_error_and_no_reason_to_trust_others() {
        assert_eq!(choose(Vec::new(), true), Err(NoRoots));
        assert_eq!(choose(vec![CertificateDer::from(b"no certificate".to_vec())], true), Err(NoRoots));
    }
}
