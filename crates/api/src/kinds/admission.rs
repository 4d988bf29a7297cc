//! The ValidatingAdmissionPolicy of Notifications: checks the extension attributes, which schema rules cannot see.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec, Validation, Variable,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::{GROUP, VERSION};

const NAME: &str = "notifications.tidings.dev";
const IMMUTABLE: &str = "spec is immutable: create a new Notification instead";
/// Maximum length of an attribute value, in bytes. In binary mode the value becomes a header of up to three times this
/// length.
const MAX_ATTRIBUTE: usize = 4096;

/// The policy and the binding that enforces it in every namespace.
///
/// The policy validates only new objects. The spec of a stored object cannot change, and a rule from a later version
/// must not block changes of labels and finalizers.
pub fn admission_policy() -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    let text = format!("type(object.spec.event[k]) != string || size(bytes(object.spec.event[k])) <= {MAX_ATTRIBUTE}");
    let validations = vec![
        validation(
            "oldObject != null || size(object.spec.event) <= 64",
            "spec.event: has more than 64 attributes: move some into data",
            None,
        ),
        validation("oldObject == null || object.spec == oldObject.spec", IMMUTABLE, None),
        of_attributes(
            "k == 'data_base64' || k.matches('^[a-z0-9]{1,64}$')",
            "an attribute name must have 1 to 64 lower-case letters and digits (CloudEvents 1.0, section 3): rename the attribute or move it into data (bytes go into data_base64)",
        ),
        of_attributes(
            "k == 'data' || type(object.spec.event[k]) == string || type(object.spec.event[k]) == bool || (type(object.spec.event[k]) == int && object.spec.event[k] >= -2147483648 && object.spec.event[k] <= 2147483647)",
            "an attribute must be a string, a boolean or a 32-bit integer (CloudEvents 1.0, section 3.1): quote the value or move it into data",
        ),
        of_attributes(
            &format!("k == 'data' || k == 'data_base64' || {text}"),
            "an attribute value must have at most 4096 bytes: shorten the value or move it into data",
        ),
    ];
    policy(NAME, "notifications", Vec::new(), validations)
}

/// A policy for creates and updates of `resource` (not of its status), and the binding that enforces it in every
/// namespace.
pub(super) fn policy(
    name: &str,
    resource: &str,
    variables: Vec<Variable>,
    validations: Vec<Validation>,
) -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    let policy = ValidatingAdmissionPolicy {
        metadata: metadata.clone(),
        spec: Some(ValidatingAdmissionPolicySpec {
            failure_policy: Some("Fail".into()),
            // Defaults of the API server are written out, so that two tools that apply the policy do not conflict.
            match_constraints: Some(MatchResources {
                resource_rules: Some(vec![NamedRuleWithOperations {
                    api_groups: Some(vec![GROUP.into()]),
                    api_versions: Some(vec![VERSION.into()]),
                    operations: Some(vec!["CREATE".into(), "UPDATE".into()]),
                    resources: Some(vec![resource.into()]),
                    scope: Some("*".into()),
                    ..NamedRuleWithOperations::default()
                }]),
                match_policy: Some("Equivalent".into()),
                namespace_selector: Some(LabelSelector::default()),
                object_selector: Some(LabelSelector::default()),
                ..MatchResources::default()
            }),
            variables: (!variables.is_empty()).then_some(variables),
            validations: Some(validations),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        ..ValidatingAdmissionPolicy::default()
    };
    let binding = ValidatingAdmissionPolicyBinding {
        metadata,
        spec: ValidatingAdmissionPolicyBindingSpec {
            policy_name: name.into(),
            validation_actions: vec!["Deny".into()],
            ..ValidatingAdmissionPolicyBindingSpec::default()
        },
    };
    (policy, binding)
}

/// A rule that each attribute `k` of a new event must satisfy. The message names the attributes that violate it.
fn of_attributes(rule: &str, message: &str) -> Validation {
    let names = format!("object.spec.event.filter(k, !({rule})).map(k, string(k)).join(', ')");
    validation(
        &format!("oldObject != null || object.spec.event.all(k, {rule})"),
        &format!("spec.event: {message}"),
        Some(format!("'spec.event.' + {names} + ': {message}'")),
    )
}

pub(super) fn validation(expression: &str, message: &str, message_expression: Option<String>) -> Validation {
    Validation {
        expression: expression.into(),
        message: Some(message.into()),
        message_expression,
        reason: Some("Invalid".into()),
    }
}
