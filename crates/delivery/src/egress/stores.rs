//! Parsed certificate authorities: each bundle is parsed once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};

use super::{
    roots::public_roots,
    trust::{Authorities, RootsFault, Trust, TrustError, add},
};

/// Makes the TLS configuration of connections to a server of the administrator, such as a collector of traces: TLS 1.2 and
/// 1.3, without application protocols, which the caller adds.
///
/// # Errors
/// When the bundle of the authorities cannot be used.
pub fn tls_config(authorities: Authorities) -> Result<ClientConfig, TrustError> {
    let roots = Stores::default().with(&authorities)?;
    let mut config = Trust { authorities, identity: None }.config(roots)?;
    config.alpn_protocols.clear();
    Ok(config)
}

/// Whether the public authorities are in a store, and the SHA-256 of its bundle.
type Key = (bool, Option<[u8; 32]>);

/// The stores in use, by content: clients that differ only in their client certificate share a store.
#[derive(Debug, Default)]
pub(super) struct Stores(Mutex<HashMap<Key, Weak<RootCertStore>>>);

impl Stores {
    /// Returns the store with these authorities.
    pub(super) fn with(&self, authorities: &Authorities) -> Result<Arc<RootCertStore>, RootsFault> {
        let bundle = authorities.bundle();
        let key = (authorities.include_public(), bundle.map(|bundle| Sha256::digest(bundle).into()));
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(&key).and_then(Weak::upgrade) {
            return Ok(store);
        }
        let mut store = if authorities.include_public() { public_roots() } else { RootCertStore::empty() };
        if let Some(bundle) = bundle {
            add(&mut store, bundle)?;
        }
        let store = Arc::new(store);
        stores.retain(|_, store| store.strong_count() > 0);
        stores.insert(key, Arc::downgrade(&store));
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use testkit::Authority;

    use super::*;

    #[test]
    fn s17_a_bundle_is_parsed_once_for_all_that_use_it_and_forgotten_after_the_last() {
        let stores = Stores::default();
        let (one, other) = (Authority::new(), Authority::new());
        let and = |authority: &Authority| Authorities::PublicAnd(authority.ca_pem().into());
        let with = |authority: &Authority| stores.with(&and(authority)).unwrap();
        let first = with(&one);
        assert!(Arc::ptr_eq(&first, &with(&one)));
        assert!(!Arc::ptr_eq(&first, &with(&other)));
        let public = stores.with(&Authorities::Public).unwrap();
        assert_eq!(first.len(), public.len() + 1);
        drop((first, public));
        let _other = with(&other);
        assert_eq!(stores.0.lock().unwrap().len(), 1);
        assert_eq!(stores.with(&Authorities::PublicAnd(Vec::new())).unwrap_err(), RootsFault::Empty);
    }

    #[test]
    fn s15_a_store_without_the_public_authorities_holds_the_bundle_and_nothing_else() {
        let stores = Stores::default();
        let authority = Authority::new();
        let bundle = || authority.ca_pem().as_bytes().to_vec();
        let both = stores.with(&Authorities::PublicAnd(bundle())).unwrap();
        let only = stores.with(&Authorities::Only(bundle())).unwrap();
        assert!(both.len() > 2, "there are public authorities");
        assert_eq!(only.len(), 1);
        assert!(both.roots.contains(&only.roots[0]), "the authority of the bundle");
        assert!(Arc::ptr_eq(&only, &stores.with(&Authorities::Only(bundle())).unwrap()));
        assert_eq!(stores.with(&Authorities::Only(Vec::new())).unwrap_err(), RootsFault::Empty, "trusts no one");
    }
}
