//! The table of the chart's values in its README, from the comments in values.yaml.

use serde_yaml::Value;

use crate::cluster::root;

const START: &str = "<!-- The table comes from values.yaml: run make generate. -->\n";
const END: &str = "<!-- End of the table. -->\n";

/// Returns the chart's README with the table of values that values.yaml now says.
pub fn readme() -> String {
    let read = |file: &str| std::fs::read_to_string(root().join("charts/tidings").join(file)).unwrap();
    let (page, values) = (read("README.md"), read("values.yaml"));
    let (before, rest) = page.split_once(START).expect("the start of the table");
    let (_, after) = rest.split_once(END).expect("the end of the table");
    let defaults: Value = serde_yaml::from_str(&values).unwrap();
    let rows: String = rows(&values, &defaults)
        .into_iter()
        .map(|[path, default, meaning]| format!("| `{path}` | {default} | {meaning} |\n"))
        .collect();
    format!("{before}{START}\n| value | default | meaning |\n|---|---|---|\n{rows}\n{END}{after}")
}

/// The rows of the table: each value with its path, its default and the comment above it. Fails for a value without a
/// comment.
fn rows(values: &str, defaults: &Value) -> Vec<[String; 3]> {
    let (mut rows, mut comment, mut path) = (Vec::new(), String::new(), Vec::<(usize, String)>::new());
    for line in values.lines() {
        let (text, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        if let Some(words) = text.strip_prefix('#') {
            comment = format!("{comment} {}", words.trim()).trim().to_owned();
            continue;
        }
        let Some((key, inline)) = text.split_once(':') else {
            comment.clear();
            continue;
        };
        path.retain(|(depth, _)| *depth < indent);
        path.push((indent, key.to_owned()));
        let keys = path.iter().map(|(_, key)| key.as_str());
        let value = keys.clone().try_fold(defaults, |value, key| value.get(key)).unwrap();
        let path = keys.collect::<Vec<_>>().join(".");
        // The settings of the container belong to one value.
        let is_group = inline.trim().is_empty() && value.is_mapping();
        if path.starts_with("resources.") {
            continue;
        }
        if !is_group || path == "resources" {
            assert!(!comment.is_empty(), "values.yaml: {path} has no comment");
            let default = serde_json::to_string(value).unwrap();
            // An angle bracket or a bar would end a cell or start a tag.
            let meaning = std::mem::take(&mut comment).replace('|', "\\|").replace('<', "&lt;");
            rows.push([path, format!("`{default}`"), meaning]);
        } else if !comment.is_empty() {
            rows.push([path, String::new(), std::mem::take(&mut comment)]);
        }
    }
    rows
}

#[test]
fn each_value_of_the_chart_has_a_comment_and_a_description_or_type_in_the_schema() {
    let values = std::fs::read_to_string(root().join("charts/tidings/values.yaml")).unwrap();
    let schema = std::fs::read_to_string(root().join("charts/tidings/values.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let rows = rows(&values, &serde_yaml::from_str(&values).unwrap());
    assert!(rows.len() > 50, "{}", rows.len());
    for [path, _, meaning] in rows {
        assert!(meaning.ends_with(['.', ')']) || path == "resources", "{path}: {meaning}");
        let in_schema = path.split('.').try_fold(&schema, |of, key| {
            let named = of["$ref"].as_str().and_then(|name| schema.pointer(name.strip_prefix('#')?));
            named.unwrap_or(of).get("properties")?.get(key)
        });
        assert!(in_schema.is_some(), "values.schema.json: {path} is missing");
    }
}
