//! The two text formats in which metrics are served, and the choice between them.

use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    registry::Registry,
};

/// A format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// The text format of Prometheus, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// Returns the format that the values of the header `Accept` prefer (RFC 9110, section 12.5.1). Of formats that are
    /// preferred equally, the first one in the header counts. A client that accepts anything, or neither format, gets
    /// the text format, as the client libraries of Prometheus decide.
    pub fn negotiated<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let ranges = accept.into_iter().flat_map(|value| value.split(','));
        let mut best = None;
        for (format, quality) in ranges.filter_map(range) {
            if quality > 0 && best.is_none_or(|(_, highest)| quality > highest) {
                best = Some((format, quality));
            }
        }
        best.map_or(Self::Text, |(format, _)| format)
    }

    /// The value of the header `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Encodes all metrics of `registries`.
    pub(super) fn encode(self, registries: &[&Registry]) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        for registry in registries {
            let _ = encode_registry(&mut text, registry);
        }
        let _ = encode_eof(&mut text);
        match self {
            Self::OpenMetrics => text,
            Self::Text => plain(&text),
        }
    }
}

/// Reads one media range with its quality in thousandths (None: not a format that is served).
fn range(text: &str) -> Option<(Exposition, u32)> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next()?.to_ascii_lowercase();
    let (mut version, mut quality) = (None, Some(1000));
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "version" => version = Some(value),
            "q" => quality = thousandths(value),
            _ => {}
        }
    }
    let format = match (media.as_str(), version) {
        ("application/openmetrics-text", None | Some("1.0.0")) => Exposition::OpenMetrics,
        ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => Exposition::Text,
        _ => return None,
    };
    Some((format, quality?))
}

/// Reads a quality from 0 to 1 (None: malformed).
fn thousandths(text: &str) -> Option<u32> {
    let quality: f64 = text.parse().ok().filter(|quality| (0.0..=1.0).contains(quality))?;
    // From 0 to 1000.
    Some((quality * 1000.0).round() as u32)
}

/// Turns OpenMetrics, as the library writes it, into the text format: a counter has the name of its samples, and there
/// are no units and no end.
fn plain(open_metrics: &str) -> String {
    let (mut text, mut help) = (String::with_capacity(open_metrics.len()), "");
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let about = help.strip_prefix(name).unwrap_or_default();
            for part in ["# HELP ", name, suffix, about, "\n# TYPE ", name, suffix, " ", kind, "\n"] {
                text.push_str(part);
            }
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use prometheus_client::{
        metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
        registry::Unit,
    };

    use super::*;

    #[test]
    fn the_format_that_the_client_prefers_is_served_and_text_if_it_prefers_none() {
        let open = "application/openmetrics-text";
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            ("", Exposition::Text),
            ("*/*", Exposition::Text),
            ("text/*", Exposition::Text),
            ("text/plain", Exposition::Text),
            ("text/plain; version=0.0.4", Exposition::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Exposition::Text),
            ("application/json", Exposition::Text),
            (open, Exposition::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"", Exposition::OpenMetrics),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", Exposition::OpenMetrics),
            (prometheus, Exposition::OpenMetrics),
            ("application/openmetrics-text;q=0.5,text/plain;q=0.7", Exposition::Text),
            ("text/plain;q=0.5 , application/openmetrics-text ; q=0.7", Exposition::OpenMetrics),
            ("text/plain,application/openmetrics-text", Exposition::Text),
            ("application/openmetrics-text,text/plain", Exposition::OpenMetrics),
            ("*/*;q=0.1,application/openmetrics-text;q=0.5", Exposition::OpenMetrics),
            ("application/openmetrics-text;q=0", Exposition::Text),
            ("application/openmetrics-text;q=0,*/*;q=0.5", Exposition::Text),
            ("application/openmetrics-text;version=2.0.0", Exposition::Text),
            ("application/openmetrics-text;q=many", Exposition::Text),
            ("application/openmetrics-text;q=7", Exposition::Text),
            (";;,=,q=", Exposition::Text),
        ] {
            assert_eq!(Exposition::negotiated([accept]), expected, "{accept}");
        }
        assert_eq!(Exposition::negotiated([]), Exposition::Text);
        assert_eq!(Exposition::negotiated(["text/plain;q=0.1", open]), Exposition::OpenMetrics, "in two lines");
    }

    #[test]
    fn both_formats_hold_the_same_samples() {
        let mut registry = Registry::with_prefix("a");
        let (counter, gauge, histogram) = (Counter::<u64>::default(), Gauge::<i64>::default(), Histogram::new([1.0]));
        registry.register("tries", "How often", counter.clone());
        registry.register("open", "How many", gauge.clone());
        registry.register_with_unit("wait", "How long", Unit::Seconds, histogram.clone());
        counter.inc();
        gauge.set(7);
        histogram.observe(0.5);
        let samples = "a_wait_seconds_sum 0.5\na_wait_seconds_count 1\na_wait_seconds_bucket{le=\"1.0\"} 1\na_wait_seconds_bucket{le=\"+Inf\"} 1\n";
        let text = format!(
            "# HELP a_tries_total How often.\n# TYPE a_tries_total counter\na_tries_total 1\n# HELP a_open How many.\n# TYPE a_open gauge\na_open 7\n# HELP a_wait_seconds How long.\n# TYPE a_wait_seconds histogram\n{samples}"
        );
        assert_eq!(Exposition::Text.encode(&[&registry]), text);
        let open = format!(
            "# HELP a_tries How often.\n# TYPE a_tries counter\na_tries_total 1\n# HELP a_open How many.\n# TYPE a_open gauge\na_open 7\n# HELP a_wait_seconds How long.\n# TYPE a_wait_seconds histogram\n# UNIT a_wait_seconds seconds\n{samples}# EOF\n"
        );
        assert_eq!(Exposition::OpenMetrics.encode(&[&registry]), open);
    }
}
