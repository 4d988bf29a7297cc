//! The ValidatingAdmissionPolicy that checks whether the user who writes a Subscriber may get the Secrets whose values
//! the Subscriber sends, and may create the ServiceAccount tokens that it sends.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, Validation, Variable,
};

use super::admission::{policy, validation};

/// The name of the policy and of its binding. The chart omits both if the operator requires the consent of Secrets.
pub const SECRET_ACCESS_POLICY: &str = "subscriber-secrets.tidings.dev";

/// Maximum number of Secrets that are checked by name. A check costs 350,000 units of CEL; the API server allows
/// 1,000,000 for an expression and 10,000,000 for a binding. Each expression therefore has one check: one for each of
/// 20 Secrets, one for the namespace and one for the ServiceAccount.
const MOST_NAMES: usize = 20;

/// The endpoints that may have headers.
const ENDPOINTS: [&str; 2] = ["webhook", "tokenService"];
/// The field that names a ServiceAccount.
const ACCOUNT: &str = "object.spec.tokenService.?serviceAccountToken";
/// The optional fields that name a Secret.
const OPTIONAL: [&str; 6] = [
    "tokenService.?credentialsSecretRef",
    "tokenService.?privateKeyJWT.?keySecretRef",
    "webhook.?tls.?clientCertificateSecretRef",
    "tokenService.?tls.?clientCertificateSecretRef",
    "webhook.?signature.?secretRef",
    "webhook.?signature.?previousSecretRef",
];

/// The values of clientAuthentication that send the client secret, as a list in CEL.
const SEND_A_SECRET: &str = "['Basic', 'BasicUnencoded', 'Post']";

/// The policy and the binding that enforces it in every namespace.
///
/// The Secret of a `caRef` is not checked, because CA certificates are not sent to an endpoint.
pub fn secret_access_policy() -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    let too_many = format!(
        "spec: names more than {MOST_NAMES} Secrets, which is more than the API server can check for a user who may not get every Secret in the namespace: combine values in one Secret with several keys, or have a user who may get every Secret in the namespace apply this Subscriber"
    );
    let no_more = format!("variables.free || variables.names{}.size() == 0", MOST_NAMES + 1);
    let mut validations = vec![forbidden(&no_more, &too_many, None)];
    validations.extend((1..=MOST_NAMES).map(may_get));
    validations.push(may_create_tokens());
    policy(SECRET_ACCESS_POLICY, "subscribers", variables(), validations)
}

/// The variables of the policy. `names1` holds the names of all Secrets, `names2` the names that differ from the first
/// name in `names1`, and so on: the first elements are the distinct names. (Kubernetes 1.34 adds the function
/// `distinct`.)
fn variables() -> Vec<Variable> {
    let optional = OPTIONAL.map(|field| move |object: &str| format!("{object}.spec.{field}"));
    let headers = |object: &str, endpoint| {
        format!(
            "{object}.spec.{endpoint}.?headers.orValue([]).filter(h, has(h.valueFrom)).map(h, h.valueFrom.secretKeyRef)"
        )
    };
    let named = optional.map(|of| format!("{}.optMap(ref, [ref.name]).orValue([])", of("object")));
    let values = ENDPOINTS.map(|endpoint| format!("{}.map(ref, ref.name)", headers("object", endpoint)));
    let mut same_endpoints = vec!["oldObject != null".to_owned()];
    same_endpoints.extend(
        ["webhook.url", "tokenService.url"].map(|field| format!("object.spec.{field} == oldObject.spec.{field}")),
    );
    let mut unchanged = vec!["variables.sameEndpoints".to_owned()];
    // Another client authentication may send another key of the same Secret.
    unchanged.push(format!(
        "(!(object.spec.tokenService.clientAuthentication in {SEND_A_SECRET}) || oldObject.spec.tokenService.clientAuthentication in {SEND_A_SECRET})"
    ));
    // An assertion for another audience is a credential of another token service.
    unchanged.push(
        "(!object.spec.tokenService.?privateKeyJWT.hasValue() || object.spec.tokenService.?privateKeyJWT.?audience == oldObject.spec.tokenService.?privateKeyJWT.?audience)".to_owned(),
    );
    unchanged.extend(optional.iter().map(|of| {
        let (new, old) = (of("object"), of("oldObject"));
        format!("(!{new}.hasValue() || {new} == {old})")
    }));
    // A value of the token service's headers must not go to the webhook, nor the other way round.
    unchanged.extend(ENDPOINTS.map(|endpoint| {
        format!("{}.all(ref, ref in {})", headers("object", endpoint), headers("oldObject", endpoint))
    }));
    let names = [&named[..], &values].concat().join(" + ");
    let mut variables = vec![
        variable("sameEndpoints", &same_endpoints.join(" && ")),
        variable("unchanged", &unchanged.join(" && ")),
        variable("free", &format!("variables.unchanged || {}", allowed(None))),
        variable("names1", &names),
    ];
    variables.extend((1..=MOST_NAMES).map(|n| {
        variable(&format!("names{}", n + 1), &format!("variables.names{n}.filter(name, name != variables.names{n}[0])"))
    }));
    variables
}

/// The rule that the user may get the n-th distinct Secret.
fn may_get(n: usize) -> Validation {
    let name = format!("variables.names{n}[0]");
    let rule = format!("variables.free || variables.names{n}.size() == 0 || {}", allowed(Some(&name)));
    let remedy = "this Subscriber sends values of the Secret to an endpoint, or signs events with a key in the Secret. Have a user who may get the Secret apply this Subscriber, or have an administrator of the namespace grant the verb get on the Secret";
    forbidden(
        &rule,
        &format!("spec: the user may not get a Secret that this Subscriber names: {remedy}"),
        Some(format!(
            "'spec: ' + request.userInfo.username + ' may not get Secret ' + {name} + ' in namespace ' + request.namespace + ': {remedy}'"
        )),
    )
}

/// The rule that the user may create tokens of the ServiceAccount.
fn may_create_tokens() -> Validation {
    let (old, name) = (ACCOUNT.replacen("object", "oldObject", 1), "object.spec.tokenService.serviceAccountToken.name");
    // The same ServiceAccount with another audience is a credential of another token service.
    let same = ["name", "audience"].map(|field| format!("{ACCOUNT}.?{field} == {old}.?{field}")).join(" && ");
    let allowed = format!(
        "authorizer.group('').resource('serviceaccounts').subresource('token').namespace(request.namespace).name({name}).check('create').allowed()"
    );
    let rule = format!("!{ACCOUNT}.hasValue() || variables.sameEndpoints && {same} || {allowed}");
    let remedy = "this Subscriber sends tokens of the ServiceAccount to a token service. Have a user who may create its tokens apply this Subscriber, or have an administrator of the namespace grant the verb create on serviceaccounts/token for the ServiceAccount";
    forbidden(
        &rule,
        &format!(
            "spec.tokenService.serviceAccountToken: the user may not create tokens of the ServiceAccount: {remedy}"
        ),
        Some(format!(
            "'spec.tokenService.serviceAccountToken: ' + request.userInfo.username + ' may not create tokens of ServiceAccount ' + {name} + ' in namespace ' + request.namespace + ': {remedy}'"
        )),
    )
}

/// A CEL expression: whether the user may get this Secret (None: every Secret in the namespace).
fn allowed(name: Option<&str>) -> String {
    let name = name.map_or_else(String::new, |name| format!(".name({name})"));
    format!("authorizer.group('').resource('secrets').namespace(request.namespace){name}.check('get').allowed()")
}

fn forbidden(rule: &str, message: &str, message_expression: Option<String>) -> Validation {
    Validation { reason: Some("Forbidden".into()), ..validation(rule, message, message_expression) }
}

fn variable(name: &str, expression: &str) -> Variable {
    Variable { name: name.into(), expression: expression.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::subscriber_crd;

    fn paths(schema: &Value, path: &str, found: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let ends = ["SecretRef", "secretRef", "secretKeyRef", "serviceAccountToken"];
            let is_secret = ends.iter().any(|end| name.ends_with(end));
            if is_secret || name == "url" {
                found.push(path.clone());
            }
            paths(property, &path, found);
            paths(&property["items"], &path, found);
        }
    }

    #[test]
    fn s20_the_policy_looks_at_every_reference_to_a_secret_and_at_every_url() {
        let crd = serde_json::to_value(subscriber_crd()).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut found = Vec::new();
        paths(schema, "spec", &mut found);
        // A new path needs an entry in the variables of the policy.
        let expected = [
            "spec.tokenService.credentialsSecretRef",
            "spec.tokenService.headers.valueFrom.secretKeyRef",
            "spec.tokenService.privateKeyJWT.keySecretRef",
            "spec.tokenService.serviceAccountToken",
            "spec.tokenService.tls.clientCertificateSecretRef",
            "spec.tokenService.url",
            "spec.webhook.headers.valueFrom.secretKeyRef",
            "spec.webhook.signature.previousSecretRef",
            "spec.webhook.signature.secretRef",
            "spec.webhook.tls.clientCertificateSecretRef",
            "spec.webhook.url",
        ];
        assert_eq!(found, expected);
    }
}
