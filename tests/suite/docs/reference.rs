//! Writes `docs/api.md` from the schemas.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use tidings_api::{
    AttemptReason, ConditionType, NotificationReason, SubscriberReason, notification_crd, subscriber_crd,
};

/// The whole page.
pub fn page() -> String {
    let mut page = String::from(
        "# API reference\n\n<!-- Generated from the schemas by `make generate`; do not edit. -->\n\n\
         Group `tidings.dev`, version `v1alpha1`. `kubectl explain notification.spec.event` and the like show the same texts.\n",
    );
    for crd in [subscriber_crd(), notification_crd()] {
        kind(&mut page, &crd);
    }
    page
}

/// `docs/reasons.md`: the catalogue.
pub fn reasons() -> String {
    let mut page = String::from(
        "# Conditions and reasons\n\n<!-- Generated from the catalogue by `make generate`; do not edit. -->\n\n\
         The condition types and reasons that Tidings publishes. Scripts and alerts may rely on them; later versions may add more.\n",
    );
    macro_rules! table {
        ($($title:literal: $catalogue:ident,)+) => {$(
            writeln!(page, "\n## {}\n\n{}\n\n| name | meaning | what to do |\n|---|---|---|", $title, $catalogue::ABOUT.trim()).unwrap();
            for word in $catalogue::ALL {
                let remedy = if word.remedy() == "Nothing." { "—" } else { word.remedy() };
                writeln!(page, "| `{word}` | {} | {remedy} |", word.meaning().trim()).unwrap();
            }
        )+};
    }
    table! {
        "Condition types": ConditionType,
        "Reasons of a Subscriber": SubscriberReason,
        "Reasons of a Notification": NotificationReason,
        "Reasons of an attempt": AttemptReason,
    }
    page
}

fn kind(page: &mut String, crd: &CustomResourceDefinition) {
    let names = &crd.spec.names;
    let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    let short = names.short_names.as_ref().unwrap().join(", ");
    writeln!(page, "\n## {} (short name `{short}`)\n\n{}\n", names.kind, text(schema)).unwrap();
    writeln!(page, "| field | type | default | meaning |\n|---|---|---|---|").unwrap();
    for part in ["spec", "status"] {
        fields(page, part, &schema.properties.as_ref().unwrap()[part]);
    }
    writeln!(page, "\nSelectable with `--field-selector`: {}.", selectable(crd)).unwrap();
}

fn fields(page: &mut String, path: &str, schema: &JSONSchemaProps) {
    let required = schema.required.iter().flatten().collect::<Vec<_>>();
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let default = field.default.as_ref().map_or_else(String::new, |json| format!("`{}`", json.0));
        let default = if required.contains(&name) && default.is_empty() { "required".into() } else { default };
        writeln!(page, "| `{path}` | {} | {default} | {} |", type_of(field), text(field)).unwrap();
        fields(page, &path, field);
        if let Some(JSONSchemaPropsOrArray::Schema(item)) = &field.items {
            fields(page, &format!("{path}[]"), item);
        }
    }
}

fn type_of(field: &JSONSchemaProps) -> String {
    let name = match (&field.type_, &field.format, &field.items) {
        (None, ..) => "any JSON value".into(),
        (Some(_), Some(format), _) if format == "date-time" => "time (RFC 3339)".into(),
        (Some(_), _, Some(JSONSchemaPropsOrArray::Schema(item))) => format!("list of {}", type_of(item)),
        (Some(type_), ..) => type_.clone(),
    };
    let values =
        field.enum_.iter().flatten().map(|value| format!("`{}`", value.0.as_str().unwrap())).collect::<Vec<_>>();
    let range = match (field.minimum, field.maximum) {
        (Some(from), Some(to)) => format!(", {from} to {to}"),
        (Some(from), None) => format!(", at least {from}"),
        _ => String::new(),
    };
    let length = match (field.max_length, field.max_items) {
        (Some(length), _) => format!(", at most {length} characters"),
        (_, Some(items)) => format!(", at most {items} items"),
        _ => String::new(),
    };
    if values.is_empty() { format!("{name}{range}{length}") } else { values.join(" or ") }
}

fn text(schema: &JSONSchemaProps) -> String {
    schema.description.as_deref().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

fn selectable(crd: &CustomResourceDefinition) -> String {
    let fields = crd.spec.versions[0].selectable_fields.iter().flatten();
    let names = fields.map(|field| format!("`{}`", field.json_path.trim_start_matches('.'))).collect::<Vec<_>>();
    if names.is_empty() { "`metadata.name`, `metadata.namespace`".into() } else { names.join(", ") }
}
