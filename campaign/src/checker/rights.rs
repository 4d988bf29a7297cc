//! What holds of the operators' rights: those of the chart's Role are enough.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::rules::TOLERANCE;
use crate::findings::Violation;
use crate::record::Record;

/// The API server knows new rights after this.
const KNOWN: SignedDuration = SignedDuration::from_secs(3);

/// The requests that the API server refused to the operators, each once, except while the API server did not know any
/// rights.
pub(super) fn missing(record: &Record) -> Vec<Violation> {
    let knew = |at: Timestamp| !record.unready.iter().any(|unready| unready.meets(at - TOLERANCE, at + TOLERANCE));
    let taken = |at: Timestamp, request: &str| {
        let in_namespace = |namespace: &str| request.contains(&format!("/namespaces/{namespace}/"));
        let mut barred = record.barred.iter().filter(|(namespace, _)| in_namespace(namespace));
        // Given back, they are known a moment later.
        barred.any(|(_, windows)| windows.iter().any(|window| window.meets(at - KNOWN, at + TOLERANCE)))
    };
    let mut seen = BTreeSet::new();
    let missing =
        record.forbidden.iter().filter(|(at, request)| knew(*at) && !taken(*at, request) && seen.insert(request));
    missing.map(|(at, request)| Violation::Forbidden { request: request.clone(), at: *at }).collect()
}

#[cfg(test)]
mod tests {
    use crate::checker::fixture::{at, violations};
    use crate::findings::Violation;
    use crate::record::Window;

    #[test]
    fn a_missing_right_is_told_once() {
        let forbidden = |seconds: f64, request: &str| Violation::Forbidden { request: request.into(), at: at(seconds) };
        let found = violations(|record| {
            let times = [(5.0, "POST events"), (6.0, "POST events"), (7.0, "DELETE notifications")];
            record.forbidden = times.map(|(seconds, request)| (at(seconds), request.into())).into();
        });
        assert_eq!(found, [forbidden(5.0, "POST events"), forbidden(7.0, "DELETE notifications")]);
    }

    #[test]
    fn rights_that_were_taken_away_are_missed_in_that_namespace_alone() {
        let refused = |seconds: f64, namespace: &str| {
            violations(|record| {
                record.barred.insert("a".into(), vec![Window { from: at(10.0), to: at(14.0) }]);
                record.forbidden.push((at(seconds), format!("GET /api/v1/namespaces/{namespace}/secrets")));
            })
        };
        assert_eq!((refused(12.0, "a"), refused(16.5, "a")), (vec![], vec![]));
        assert_eq!((refused(12.0, "ab").len(), refused(8.0, "a").len(), refused(18.0, "a").len()), (1, 1, 1));
    }

    #[test]
    fn an_api_server_that_is_not_ready_refuses_everybody() {
        let refused = |seconds: f64| {
            violations(|record| {
                record.unready.push(Window { from: at(10.0), to: at(14.0) });
                record.forbidden.push((at(seconds), "POST events".into()));
            })
        };
        assert_eq!((refused(12.0), refused(14.5)), (vec![], vec![]));
        assert_eq!((refused(8.0).len(), refused(16.0).len()), (1, 1));
    }
}
