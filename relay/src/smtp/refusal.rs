//! What a mail server's refusal means for a letter, and what is kept of its words. Pure.

use crate::outcome::{Failure, FailureClass};
use lettre::transport::smtp::Error;
use regex::Regex;
use std::{error::Error as _, sync::LazyLock};

/// So much of a server's words is kept.
const WORDS: usize = 300;

/// Whether the letter goes out although some recipients were refused; then the refusals that nobody will hear of again.
pub(super) fn go_on(
    recipients: usize,
    refused: Vec<Failure>,
    is_last: bool,
) -> Result<Vec<Failure>, Failure> {
    let worst = refused.iter().find(|failure| failure.class.is_the_sinks());
    let temporary = refused.iter().find(|failure| failure.class == FailureClass::Transient);
    let none_left = refused.len() >= recipients;
    let waits = temporary.filter(|_| none_left || !is_last).or_else(|| refused.first().filter(|_| none_left));
    match worst.or(waits) {
        Some(failure) => Err(failure.clone()),
        None => Ok(refused),
    }
}

/// What is in the way before a letter is on its way: never the letter's fault.
pub(super) fn no_way_in(error: &Error) -> Failure {
    let class = match error.status().map(u16::from) {
        Some(400..500) => FailureClass::SinkDown,
        Some(_) => FailureClass::SinkMisconfigured,
        // The client's own errors: the server offers no STARTTLS or no login.
        None if error.is_client() || is_certificate(error) => FailureClass::SinkMisconfigured,
        None => FailureClass::SinkDown,
    };
    Failure::new(class, format!("SMTP: {}", words(&error.to_string())))
}

/// What the server says to a letter.
pub(super) fn refusal(error: &Error) -> Failure {
    Failure::new(class_of(error.status().map(u16::from)), format!("SMTP: {}", words(&error.to_string())))
}

/// The class of a reply to a letter; None = there was no proper reply.
fn class_of(code: Option<u16>) -> FailureClass {
    match code {
        None | Some(421) => FailureClass::SinkDown,
        Some(530 | 534 | 535 | 538) => FailureClass::SinkMisconfigured,
        Some(400..500) => FailureClass::Transient,
        Some(_) => FailureClass::Permanent,
    }
}

fn is_certificate(error: &Error) -> bool {
    let mut source = error.source();
    while let Some(inner) = source {
        let tls = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = tls.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        source = inner.source();
    }
    false
}

/// The local part of an address may be quoted, and then holds blanks and anything else.
#[expect(clippy::expect_used, reason = "the pattern is a constant and a test uses it")]
static QUOTED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#""[^"]*"@"#).expect("a constant pattern"));

/// A server's words, fit to be stored and logged: no address, no control character, not long.
fn words(text: &str) -> String {
    let text = QUOTED.replace_all(text, "quoted@");
    let is_edge = |c: char| c.is_whitespace() || c.is_control() || "<>()[]{},;:\"'=".contains(c);
    let mut kept = String::new();
    for piece in text.split_inclusive(is_edge) {
        let word = piece.trim_end_matches(is_edge);
        kept.push_str(if word.contains('@') { "(address)" } else { word });
        kept.extend(
            piece.get(word.len()..).unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }),
        );
    }
    kept.chars().take(WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_have_their_classes() {
        let classes = [421, 451, 452, 535, 530, 550, 552, 554].map(|code| class_of(Some(code)).name());
        let expected = [
            "sink_down",
            "transient",
            "transient",
            "sink_misconfigured",
            "sink_misconfigured",
            "permanent",
            "permanent",
            "permanent",
        ];
        assert_eq!(classes, expected);
        assert_eq!(class_of(None), FailureClass::SinkDown);
    }

    #[test]
    fn one_recipient_that_is_refused_for_good_does_not_keep_the_letter_from_the_others() {
        let refused = |class| vec![Failure::new(class, "text")];
        let class = |result: Result<Vec<Failure>, Failure>| {
            result.map(|rest| rest.len()).map_err(|failure| failure.class)
        };
        assert_eq!(class(go_on(2, refused(FailureClass::Permanent), false)), Ok(1));
        assert_eq!(class(go_on(2, refused(FailureClass::Transient), false)), Err(FailureClass::Transient));
        assert_eq!(class(go_on(2, refused(FailureClass::Transient), true)), Ok(1));
        assert_eq!(class(go_on(1, refused(FailureClass::Transient), true)), Err(FailureClass::Transient));
        assert_eq!(class(go_on(1, refused(FailureClass::Permanent), true)), Err(FailureClass::Permanent));
        assert_eq!(class(go_on(2, refused(FailureClass::SinkDown), true)), Err(FailureClass::SinkDown));
        let mixed = [refused(FailureClass::Permanent), refused(FailureClass::Transient)].concat();
        assert_eq!(class(go_on(2, mixed, true)), Err(FailureClass::Transient));
    }

    #[test]
    fn a_servers_words_are_kept_without_addresses() {
        let said = words(
            "permanent error (550): 5.1.1 <Eva.Adler@kanzlei.example>: no such user eva@b.example;\r\nsee x@y",
        );
        assert_eq!(said, "permanent error (550): 5.1.1 <(address)>: no such user (address);  see (address)");
        assert_eq!(words("550 <\"eva adler\"@kanzlei.example> unknown"), "550 <(address)> unknown");
        assert_eq!(words(&"ü".repeat(1000)).chars().count(), WORDS);
    }
}
