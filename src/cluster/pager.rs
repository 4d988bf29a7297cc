//! Lists large objects in pages whose size in bytes is bounded.

use std::marker::PhantomData;

use futures::AsyncReadExt;
use kube::{Client, Resource, api::ListParams, core::NamespaceResourceScope};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tracing::warn;

use super::call::in_time;

/// The number of objects in the first page.
pub const PAGE: u32 = 64;
/// The maximum number of objects in a page.
const MOST: u32 = 256;
/// A page with more bytes than this is abandoned and read again with fewer objects.
const BYTES: usize = 4 << 20;
/// The limit for a page with one object, in bytes. The API server stores no object of this size.
const BYTES_OF_ONE: usize = 16 << 20;

/// Reads one list, page by page. The requests name no resourceVersion, so the first page is a consistent read and the
/// other pages show the same state.
pub struct Pager<K> {
    client: Client,
    path: String,
    selector: String,
    limit: u32,
    /// Where the next page begins (None: at the first object).
    token: Option<String>,
    kind: PhantomData<K>,
}

pub struct Page<K> {
    /// The objects of the page, without objects that cannot be read.
    pub items: Vec<K>,
    /// The resourceVersion of the whole list.
    pub version: String,
    /// Whether this is the last page.
    pub is_last: bool,
}

#[derive(Deserialize)]
struct List<'a> {
    metadata: ListMeta,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(default, rename = "continue")]
    token: String,
}

impl<K> Pager<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
{
    /// Lists the objects that `selector` selects in `namespace` (None: in all namespaces).
    pub fn new(client: Client, namespace: Option<&str>, selector: impl Into<String>) -> Self {
        let path = K::url_path(&(), namespace);
        Self { client, path, selector: selector.into(), limit: PAGE, token: None, kind: PhantomData }
    }

    /// Starts again with the first page.
    pub fn restart(&mut self) {
        self.token = None;
    }

    /// Reads the next page. After an error, the next call reads the same page again.
    pub async fn next(&mut self) -> Result<Page<K>, kube::Error> {
        loop {
            let Some(body) = in_time(self.read()).await? else {
                self.limit = (self.limit / 4).max(1);
                continue;
            };
            let list: List<'_> = serde_json::from_slice(&body).map_err(kube::Error::SerdeError)?;
            self.limit = next_limit(self.limit, list.items.len(), body.len());
            let items = list.items.iter().filter_map(|item| readable(item)).collect();
            let version = list.metadata.resource_version;
            self.token = Some(list.metadata.token).filter(|token| !token.is_empty());
            return Ok(Page { items, version, is_last: self.token.is_none() });
        }
    }

    /// Returns None if the page has too many bytes.
    async fn read(&self) -> Result<Option<Vec<u8>>, kube::Error> {
        let mut params = ListParams::default().fields(&self.selector).limit(self.limit);
        if let Some(token) = &self.token {
            params = params.continue_token(token);
        }
        let request = kube::core::Request::new(&self.path).list(&params).map_err(kube::Error::BuildRequest)?;
        let most = if self.limit == 1 { BYTES_OF_ONE } else { BYTES };
        let (mut body, limit) = (Vec::new(), u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1));
        let mut response = self.client.request_stream(request).await?.take(limit);
        response.read_to_end(&mut body).await.map_err(kube::Error::ReadEvents)?;
        Ok((body.len() <= most || self.limit == 1).then_some(body))
    }
}

/// Returns how many objects to request: as many as fill half of a page's bytes, judging by the previous page, and at
/// most twice the previous limit.
fn next_limit(limit: u32, items: usize, bytes: usize) -> u32 {
    if items == 0 {
        return limit;
    }
    let fit = (BYTES / 2).saturating_mul(items) / bytes.max(1);
    u32::try_from(fit).unwrap_or(MOST).clamp(1, limit.saturating_mul(2).min(MOST))
}

/// Parses an object. An object that cannot be parsed is logged and skipped, so that it does not block the others.
fn readable<K: DeserializeOwned + Resource<DynamicType = ()>>(item: &RawValue) -> Option<K> {
    #[derive(Deserialize)]
    struct NamedObject {
        metadata: ObjectNames,
    }
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct ObjectNames {
        namespace: String,
        name: String,
    }
    let read = serde_json::from_str(item.get());
    read.inspect_err(|error| {
        let ObjectNames { namespace, name } =
            serde_json::from_str(item.get()).map(|NamedObject { metadata }| metadata).unwrap_or_default();
        // The text of the error may quote the object.
        let (line, column) = (error.line(), error.column());
        let kind = K::kind(&());
        warn!(%kind, %namespace, %name, line, column, "cannot read a stored object, skipping it: apply the crds/ of this version, or delete the object");
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[test]
    fn s25_an_object_that_cannot_be_read_stops_no_other() {
        let object =
            |immutable: &str| format!(r#"{{"metadata": {{"name": "n", "namespace": "a"}}, "immutable": {immutable}}}"#);
        let list = format!(
            r#"{{"metadata": {{"resourceVersion": "7"}}, "items": [{}, {}, {}]}}"#,
            object("true"),
            object("{\"from\": \"the future\"}"),
            object("false")
        );
        let list: List<'_> = serde_json::from_str(&list).unwrap();
        let read: Vec<ConfigMap> = list.items.iter().filter_map(|item| readable(item)).collect();
        let values: Vec<_> = read.iter().map(|object| object.immutable).collect();
        assert_eq!(values, [Some(true), Some(false)]);
    }

    #[test]
    fn pages_follow_the_size_of_the_objects() {
        assert_eq!(next_limit(64, 64, 64 * 1024), 128, "small ones: at most twice as many");
        assert_eq!(next_limit(256, 256, 256 * 1024), 256, "and not more than the most");
        assert_eq!(next_limit(16, 2, 3 << 20), 1);
        assert_eq!(next_limit(4, 4, 4 << 20), 2);
        assert_eq!(next_limit(64, 0, 100), 64, "an empty page says nothing of size");
    }
}
