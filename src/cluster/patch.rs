//! What is written to a status: JSON Patches (RFC 6902) that test what they were decided from.

use http::header::{ACCEPT, HeaderValue};
use json_patch::{
    AddOperation, Patch as JsonPatch, PatchOperation, TestOperation,
    jsonptr::{PointerBuf, Token},
};
use kube::{
    Resource,
    api::{Patch, PatchParams},
    core::Request,
};
use serde_json::Value;

/// The name under which the operator's writes appear in `managedFields`.
const FIELD_MANAGER: &str = "tidings";

/// Of the answer to a write the metadata is used alone: this costs the API server less than the whole object, which will do
/// where that cannot be had.
const METADATA_ALONE: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;q=0.9");

// Built one by one: of a list made by `json!`, serde would copy each value once more to learn which operation it is.

/// The patch is refused (422) unless the field with this path holds `value`; for the API server null is the same as absent.
pub(crate) fn test<const N: usize>(path: [&str; N], value: Value) -> PatchOperation {
    PatchOperation::Test(TestOperation { path: pointer(path), value })
}

/// Puts `value` there, in place of what was.
pub(crate) fn add<const N: usize>(path: [&str; N], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: pointer(path), value })
}

fn pointer<const N: usize>(path: [&str; N]) -> PointerBuf {
    PointerBuf::from_tokens(path.map(Token::new))
}

/// The request that patches the status of an object of kind `K`.
pub(crate) fn request<K: Resource<DynamicType = ()>>(
    namespace: &str,
    name: &str,
    operations: Vec<PatchOperation>,
) -> Result<http::Request<Vec<u8>>, kube::Error> {
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let patch = Patch::<()>::Json(JsonPatch(operations));
    Request::new(K::url_path(&(), Some(namespace)))
        .patch_subresource("status", name, &params, &patch)
        .map_err(kube::Error::BuildRequest)
}

/// Has the API server answer with the metadata alone.
pub(crate) fn want_metadata_alone(request: &mut http::Request<Vec<u8>>) {
    request.headers_mut().insert(ACCEPT, METADATA_ALONE);
}
