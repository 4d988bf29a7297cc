//! The ValidatingAdmissionPolicy: what rules in the schema cannot see of an event's unknown attributes.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec, Validation,
};
use kube::api::ObjectMeta;

use super::{GROUP, VERSION};

const NAME: &str = "notifications.tidings.dev";

/// The policy and the binding that puts it in force everywhere.
pub fn admission_policy() -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    let metadata = ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() };
    let policy = ValidatingAdmissionPolicy {
        metadata: metadata.clone(),
        spec: Some(ValidatingAdmissionPolicySpec {
            failure_policy: Some("Fail".into()),
            match_constraints: Some(MatchResources {
                resource_rules: Some(vec![NamedRuleWithOperations {
                    api_groups: Some(vec![GROUP.into()]),
                    api_versions: Some(vec![VERSION.into()]),
                    operations: Some(vec!["CREATE".into(), "UPDATE".into()]),
                    resources: Some(vec!["notifications".into()]),
                    ..NamedRuleWithOperations::default()
                }]),
                ..MatchResources::default()
            }),
            validations: Some(vec![
                validation(
                    "oldObject == null || object.spec == oldObject.spec",
                    "spec cannot be changed: create a new Notification instead",
                ),
                validation(
                    "object.spec.event.all(k, k == 'data_base64' || k.matches('^[a-z0-9]{1,20}$'))",
                    "spec.event: an attribute name has 1 to 20 lower-case letters and digits (CloudEvents 1.0, section 3): rename the attribute, or move it into data",
                ),
                validation(
                    "object.spec.event.all(k, k == 'data' || type(object.spec.event[k]) == string || type(object.spec.event[k]) == bool || (type(object.spec.event[k]) == int && object.spec.event[k] >= -2147483648 && object.spec.event[k] <= 2147483647))",
                    "spec.event: an attribute is a string, a boolean or a 32-bit integer (CloudEvents 1.0, section 3.1): quote the value, or move it into data",
                ),
            ]),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        ..ValidatingAdmissionPolicy::default()
    };
    let binding = ValidatingAdmissionPolicyBinding {
        metadata,
        spec: ValidatingAdmissionPolicyBindingSpec {
            policy_name: NAME.into(),
            validation_actions: vec!["Deny".into()],
            ..ValidatingAdmissionPolicyBindingSpec::default()
        },
    };
    (policy, binding)
}

fn validation(expression: &str, message: &str) -> Validation {
    Validation {
        expression: expression.into(),
        message: Some(message.into()),
        reason: Some("Invalid".into()),
        ..Validation::default()
    }
}
