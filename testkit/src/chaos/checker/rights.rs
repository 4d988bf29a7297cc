//! What holds of the operators' rights: those of the chart's Role are enough.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::TOLERANCE;
use crate::chaos::findings::Violation;
use crate::chaos::record::Record;

/// What the API server refused the operators, each request once, and not while it did not know anybody's rights.
pub(super) fn missing(record: &Record) -> Vec<Violation> {
    let knew = |at: Timestamp| !record.unready.iter().any(|unready| unready.meets(at - TOLERANCE, at + TOLERANCE));
    let mut told = BTreeSet::new();
    let missing = record.forbidden.iter().filter(|(at, request)| knew(*at) && told.insert(request));
    missing.map(|(at, request)| Violation::Forbidden { request: request.clone(), at: *at }).collect()
}

#[cfg(test)]
mod tests {
    use crate::chaos::checker::fixture::{at, violations};
    use crate::chaos::findings::Violation;
    use crate::chaos::record::Window;

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
