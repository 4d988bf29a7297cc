//! JSON Patches (RFC 6902) for statuses, which test the values that the decision was based on.

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

/// The field manager of the operator's writes in `managedFields`.
const FIELD_MANAGER: &str = "tidings";

/// The Accept header of a write. The operator uses only the metadata in the response, which costs the API server less
/// than the whole object; it accepts the whole object where the API server cannot return metadata alone.
const METADATA_ALONE: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;q=0.9");

// Built one by one: serde would copy each value of a list made by `json!` again to find out which operation it is.

/// Makes the API server refuse the patch (422) unless the field at this path holds `value`. For the API server, null
/// equals absent.
pub(crate) fn test<const N: usize>(path: [&str; N], value: Value) -> PatchOperation {
    PatchOperation::Test(TestOperation { path: pointer(path), value })
}

/// Sets the field at this path to `value`.
pub(crate) fn add<const N: usize>(path: [&str; N], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: pointer(path), value })
}

fn pointer<const N: usize>(path: [&str; N]) -> PointerBuf {
    PointerBuf::from_tokens(path.map(Token::new))
}

/// Makes the request that patches the status of an object of kind `K`.
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

/// Requests a response with only the metadata.
pub(crate) fn want_metadata_alone(request: &mut http::Request<Vec<u8>>) {
    request.headers_mut().insert(ACCEPT, METADATA_ALONE);
}
