//! Media types of event data.

/// Whether a media type declares JSON: absent, `…/json` or `…+json` (CloudEvents JSON event format, section 3.1).
pub fn is_json(datacontenttype: Option<&str>) -> bool {
    let Some(media_type) = datacontenttype else {
        return true;
    };
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}
