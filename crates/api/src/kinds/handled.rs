//! Requests by a label or an annotation: which of its values were handled.

/// The number of handled values that a status keeps.
const REMEMBERED: usize = 10;

/// Whether `value` was handled: it is the last handled value, or one of the remembered values. A status that an earlier
/// version of the operator wrote has only the last.
pub fn was_handled(value: &str, last: Option<&str>, remembered: &[String]) -> bool {
    last == Some(value) || remembered.iter().any(|handled| handled == value)
}

/// Returns the remembered values after `value` was handled, the newest last. The oldest is dropped beyond ten.
pub fn with_handled(value: &str, last: Option<&str>, remembered: &[String]) -> Vec<String> {
    let mut values = remembered.to_vec();
    for newer in last.into_iter().chain([value]) {
        if !values.iter().any(|known| known == newer) {
            values.push(newer.to_owned());
        }
    }
    values.drain(..values.len().saturating_sub(REMEMBERED));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ten_values_and_the_value_of_an_earlier_version_count_as_handled() {
        // An earlier version wrote only the last value.
        let mut values = with_handled("1", Some("0"), &[]);
        assert_eq!(values, ["0", "1"]);
        for n in 2..=10 {
            values = with_handled(&n.to_string(), Some(&(n - 1).to_string()), &values);
        }
        let expected: Vec<_> = (1..=10).map(|n: u32| n.to_string()).collect();
        assert_eq!(values, expected);
        assert!(expected.iter().all(|value| was_handled(value, Some("10"), &values)));
        assert!(!was_handled("0", Some("10"), &values) && !was_handled("11", Some("10"), &values));
        assert!(was_handled("a", Some("a"), &[]) && !was_handled("a", None, &[]));
    }

    #[test]
    fn a_value_is_remembered_once_and_too_long_a_list_is_cut() {
        assert_eq!(with_handled("1", Some("1"), &["1".into()]), ["1"]);
        let long: Vec<_> = (0..30).map(|n: u32| n.to_string()).collect();
        let values = with_handled("new", None, &long);
        assert_eq!((values.len(), values[0].as_str(), values[9].as_str()), (10, "21", "new"));
    }

    #[test]
    fn an_earlier_version_that_ran_meanwhile_loses_no_value_that_it_handled() {
        // A rollback wrote a status without the list, and handled "7".
        let values = with_handled("8", Some("7"), &[]);
        assert_eq!(values, ["7", "8"]);
    }
}
