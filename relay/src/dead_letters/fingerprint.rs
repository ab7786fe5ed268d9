//! Which failures are the same: what differs from message to message is taken out of the text. Pure.

use regex::{Captures, Regex};
use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;

/// Times, UUIDs, long hexadecimal ids, and numbers with what stands inside them.
static VARYING: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?<time>\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d(?::?\d\d)?)?)?)",
        r"|(?<id>\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b|\b[0-9a-fA-F]{12,}\b)",
        r"|(?<number>\d+(?:[.,:_/]\d+)*)",
    ))
    .ok()
});

/// The failure's text with times, ids and numbers replaced.
#[must_use]
pub fn pattern(error: &str) -> String {
    let replace = |found: &Captures<'_>| {
        let text = found.get(0).map_or("", |all| all.as_str());
        match (found.name("time"), found.name("id")) {
            (Some(_), _) => "<time>".to_owned(),
            // A long word of the letters a to f is none.
            (None, Some(_)) if text.bytes().any(|byte| byte.is_ascii_digit()) => "<id>".to_owned(),
            (None, Some(_)) => text.to_owned(),
            (None, None) => "#".to_owned(),
        }
    };
    VARYING
        .as_ref()
        .map_or_else(|| error.to_owned(), |varying| varying.replace_all(error, replace).into_owned())
}

/// The name of the group: 8 hex digits of SHA-256 over operation, class and [`pattern`].
#[must_use]
pub fn group_name(operation: &str, error_class: &str, pattern: &str) -> String {
    let digest = Sha256::digest([operation, error_class, pattern].join("\0"));
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_message_to_message_is_replaced() {
        for (error, expected) in [
            ("MongoDB: no reply within 4000 ms", "MongoDB: no reply within # ms"),
            ("entry 65f1c0ffee0123456789abcd is gone", "entry <id> is gone"),
            ("request 7c9e6679-7425-40de-944b-e07fc1f90ae7 refused", "request <id> refused"),
            ("unreachable since 2026-02-17T09:14:22.123Z", "unreachable since <time>"),
            ("unreachable since 2026-02-17 09:14 in 3 tries", "unreachable since <time> in # tries"),
            ("host 10.0.0.7:27017 said 1.234,56", "host # said #"),
            ("the effaced facade fadedfacade stays", "the effaced facade fadedfacade stays"),
            (
                "the payload cannot be read: missing field `stamp`",
                "the payload cannot be read: missing field `stamp`",
            ),
            ("", ""),
        ] {
            assert_eq!(pattern(error), expected);
            assert_eq!(pattern(expected), expected, "once is enough");
        }
    }

    #[test]
    fn a_group_is_operation_class_and_pattern() {
        let name = group_name("creditor_debt_update", "permanent", "a #");
        assert_eq!(name.len(), 8);
        for other in [
            group_name("email_extraction", "permanent", "a #"),
            group_name("creditor_debt_update", "transient", "a #"),
            group_name("creditor_debt_update", "permanent", "b #"),
            group_name("creditor_debt_updatepermanent", "", "a #"),
        ] {
            assert_ne!(name, other);
        }
        assert_eq!(name, group_name("creditor_debt_update", "permanent", &pattern("a 12")));
    }
}
