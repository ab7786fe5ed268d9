//! What the headers say about how a mail came to be: three strengths of signs.
//!
//! A header tells what a server was set up to write, not what the mail says. So only what no person's mail can carry decides alone;
//! what says "a machine answered" gives way to a stated claim; and what creditors' own systems write into letters as well (ticket
//! systems, mass mailers, Exchange) only tips the scales that the text has brought near.

use crate::extraction::{Headers, Intent};

/// What the headers of one mail come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Signs {
    /// Decides alone: a report of a mail system, in the form that only such systems write.
    pub(super) report: Option<Intent>,
    /// The mail calls itself an answer that nobody wrote. Decides unless it states a claim: a portal that answers with the balance says
    /// something all the same, and a ticket system that is set up badly marks its people's letters this way too.
    pub(super) is_automatic_answer: bool,
    /// A machine had a hand in it. Decides nothing: creditors' systems send their statements by themselves.
    pub(super) is_by_machine: bool,
    /// It cannot be returned: as delivery failures are sent, and automatic letters. Tips the scales towards a failure.
    pub(super) has_no_return_path: bool,
    /// It went to many.
    pub(super) mailing: Mailing,
}

/// Whether a mail went to many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mailing {
    /// Nothing says so.
    #[default]
    No,
    /// It can be unsubscribed from, or calls itself bulk: so do single letters that go through a mass mailer.
    Perhaps,
    /// It names its list and says so in a second way.
    List,
}

impl Signs {
    pub(super) fn of(headers: Headers<'_>) -> Signs {
        let value = |name: &str| headers.get(name).unwrap_or_default().to_ascii_lowercase();
        // `auto-replied (vacation)`, `auto-generated; owner-email=..`
        let word = |name: &str| value(name).split([';', '(', ' ']).next().unwrap_or_default().to_owned();
        let has = |name: &str| !matches!(value(name).as_str(), "" | "no" | "false" | "none");
        let submitted = word("auto-submitted");
        let precedence = word("precedence");
        let is_bulk = matches!(precedence.as_str(), "bulk" | "junk" | "list");
        let (has_list, may_leave) = (has("list-id"), has("list-unsubscribe"));
        let has_no_return_path = value("return-path") == "<>";
        Signs {
            report: report(&value("content-type"), has("x-failed-recipients")),
            is_automatic_answer: submitted == "auto-replied"
                || has("x-autoreply")
                || has("x-autorespond")
                || matches!(precedence.as_str(), "auto_reply" | "auto-reply"),
            is_by_machine: !matches!(submitted.as_str(), "" | "no")
                || is_bulk
                || has_no_return_path
                // Exchange writes it into many a person's mail, which is no more than a hint either.
                || has("x-auto-response-suppress"),
            has_no_return_path,
            mailing: match (has_list, may_leave || is_bulk) {
                (true, true) => Mailing::List,
                (true, false) | (false, true) => Mailing::Perhaps,
                (false, false) => Mailing::No,
            },
        }
    }
}

/// Reports (RFC 6522): of a failed or late delivery, or that somebody has opened our mail.
fn report(content_type: &str, names_failed: bool) -> Option<Intent> {
    if names_failed {
        return Some(Intent::Bounce);
    }
    let parameters = content_type.strip_prefix("multipart/report")?;
    let is_receipt = parameters.contains("disposition-notification");
    Some(if is_receipt { Intent::AutoReply } else { Intent::Bounce })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn signs(name: &str, value: &str) -> Signs {
        Signs::of(Headers::new(Some(&json!({ name: value }))))
    }

    #[test]
    fn ordinary_headers_are_no_sign() {
        let ordinary = json!({
            "From": "a@bank.example", "Return-Path": "<a@bank.example>", "Content-Type": "multipart/alternative; boundary=report",
            "Auto-Submitted": "no", "X-Autoreply": "no", "Precedence": "first-class", "List-Id": "", "X-Failed-Recipients": " ",
        });
        assert_eq!(Signs::of(Headers::new(Some(&ordinary))), Signs::default());
        for none in [json!(null), json!([]), json!("x"), json!({}), json!({ "Auto-Submitted": 5 })] {
            assert_eq!(Signs::of(Headers::new(Some(&none))), Signs::default());
        }
        assert_eq!(Signs::of(Headers::default()), Signs::default());
    }

    #[test]
    fn reports_decide_alone() {
        let report = |name: &str, value: &str| signs(name, value).report;
        let failure = "Multipart/Report; report-type=\"delivery-status\"; boundary=x";
        assert_eq!(report("content-type", failure), Some(Intent::Bounce));
        assert_eq!(report("Content-Type", "multipart/report; boundary=x"), Some(Intent::Bounce));
        let receipt = "multipart/report; report-type=disposition-notification";
        assert_eq!(report("Content-Type", receipt), Some(Intent::AutoReply));
        assert_eq!(report("X-Failed-Recipients", "a@b.example"), Some(Intent::Bounce));
    }

    #[test]
    fn an_automatic_answer_is_told_from_a_letter_that_a_system_sends_by_itself() {
        for (name, value) in [
            ("Auto-Submitted", "auto-replied"),
            ("auto-submitted", "Auto-Replied (vacation)"),
            ("AUTO-SUBMITTED", "auto-replied; owner-email=\"a@b.example\""),
            ("X-Autoreply", "yes"),
            ("X-Autorespond", "Re: Ihre Anfrage"),
            ("Precedence", "auto_reply"),
        ] {
            assert!(signs(name, value).is_automatic_answer, "{name}: {value}");
        }
        for (name, value) in [
            ("Auto-Submitted", "auto-generated"),
            ("Auto-Submitted", "auto-notified; x"),
            ("Precedence", "bulk"),
            ("Return-Path", "<>"),
            ("X-Auto-Response-Suppress", "All"),
        ] {
            let signs = signs(name, value);
            assert!(
                signs.is_by_machine && !signs.is_automatic_answer && signs.report.is_none(),
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn a_list_says_so_in_two_ways() {
        assert_eq!(signs("List-Unsubscribe", "<https://x.example/>").mailing, Mailing::Perhaps);
        assert_eq!(signs("List-Id", "<news.x.example>").mailing, Mailing::Perhaps);
        assert_eq!(signs("Precedence", "bulk").mailing, Mailing::Perhaps);
        let both = json!({ "List-Id": "<news.x.example>", "List-Unsubscribe": "<https://x.example/>" });
        assert_eq!(Signs::of(Headers::new(Some(&both))).mailing, Mailing::List);
    }
}
