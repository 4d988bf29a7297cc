//! The ValidatingAdmissionPolicy of Notifications: what rules in the schema cannot see of an event's unknown attributes.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec, Validation, Variable,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;

use crate::{GROUP, VERSION};

const NAME: &str = "notifications.tidings.dev";
const IMMUTABLE: &str = "spec cannot be changed: create a new Notification instead";
/// The longest value of an attribute, in bytes: in binary mode it becomes a header of up to three times the length.
const MAX_ATTRIBUTE: usize = 4096;

/// The policy and the binding that puts it in force everywhere.
///
/// What is valid is asked of new objects alone. The spec of one that is stored cannot change, and a rule that came later
/// must not keep labels and finalizers from changing.
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
            "k == 'data_base64' || k.matches('^[a-z0-9]{1,20}$')",
            "an attribute name has 1 to 20 lower-case letters and digits (CloudEvents 1.0, section 3): rename it, or move it into data (bytes go into data_base64)",
        ),
        of_attributes(
            "k == 'data' || type(object.spec.event[k]) == string || type(object.spec.event[k]) == bool || (type(object.spec.event[k]) == int && object.spec.event[k] >= -2147483648 && object.spec.event[k] <= 2147483647)",
            "an attribute is a string, a boolean or a 32-bit integer (CloudEvents 1.0, section 3.1): quote its value, or move it into data",
        ),
        of_attributes(
            &format!("k == 'data' || k == 'data_base64' || {text}"),
            "an attribute has at most 4096 bytes: shorten its value, or move it into data",
        ),
    ];
    policy(NAME, "notifications", Vec::new(), validations)
}

/// A policy for what creates and updates `resource`, not its status, and the binding that puts it in force everywhere.
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
            // What the API server would fill in is written out: else two tools that apply this would conflict over it.
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

/// A rule that each attribute `k` of a new event must satisfy; the message names those that do not.
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
