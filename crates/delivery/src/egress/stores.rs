//! Parsed certificate authorities: each bundle is parsed once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use rustls::RootCertStore;
use sha2::{Digest, Sha256};

use super::{
    roots::public_roots,
    trust::{RootsFault, add},
};

/// The SHA-256 of a bundle; None: the public authorities alone.
type Key = Option<[u8; 32]>;

/// The stores in use, by bundle: clients that differ only in their client certificate share a store.
#[derive(Debug, Default)]
pub(super) struct Stores(Mutex<HashMap<Key, Weak<RootCertStore>>>);

impl Stores {
    /// Returns the store with the public authorities and the authorities in the bundle (PEM).
    pub(super) fn with(&self, bundle: Option<&[u8]>) -> Result<Arc<RootCertStore>, RootsFault> {
        let key = bundle.map(|bundle| Sha256::digest(bundle).into());
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(&key).and_then(Weak::upgrade) {
            return Ok(store);
        }
        let mut store = public_roots();
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
        let with = |authority: &Authority| stores.with(Some(authority.ca_pem().as_bytes())).unwrap();
        let first = with(&one);
        assert!(Arc::ptr_eq(&first, &with(&one)));
        assert!(!Arc::ptr_eq(&first, &with(&other)));
        let public = stores.with(None).unwrap();
        assert_eq!(first.len(), public.len() + 1);
        drop((first, public));
        let _other = with(&other);
        assert_eq!(stores.0.lock().unwrap().len(), 1);
        assert_eq!(stores.with(Some(b"")).unwrap_err(), RootsFault::Empty);
    }
}
