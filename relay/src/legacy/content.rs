//! What a mail of the replaced service says: by its last update, else by what was read in it. Pure.

use super::old::OldMail;
use crate::matching::{fold, sender_key};
use regex::Regex;
use rust_decimal::Decimal;
use shared::money::Amount;
use std::{collections::BTreeSet, sync::LazyLock};

/// The firm's case numbers, as the replaced service knew them among a mail's reference numbers.
static CASE_NUMBER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(?:[0-9]{4,}|[0-9]+_[0-9]+|[0-9]{4}/[0-9]+|[0-9]{4}-[0-9]+)$").ok());

/// Before a name, and no part of it.
const TITLES: [&str; 7] = ["herr", "herrn", "frau", "eheleute", "familie", "dr", "prof"];

/// Whom a mail is about, as far as it says so. The number may be the creditor's own: those of the firm have no form of their own.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Who {
    number: Option<String>,
    words: BTreeSet<String>,
}

impl Who {
    /// Only where number and name both say so: two numbers of one client may be the firm's and the creditor's, and a name is written in
    /// many ways.
    pub(super) fn is_certainly_another_than(&self, other: &Who) -> bool {
        let is_case = |who: &Who| {
            CASE_NUMBER.as_ref().zip(who.number.as_ref()).is_some_and(|(form, number)| form.is_match(number))
        };
        let is_named = !self.words.is_empty() && !other.words.is_empty();
        is_case(self)
            && is_case(other)
            && self.number != other.number
            && is_named
            && self.words.is_disjoint(&other.words)
    }
}

/// What a mail or an update of the replaced service says.
pub(super) struct Content {
    pub(super) client_name: Option<String>,
    pub(super) client_aktenzeichen: Option<String>,
    pub(super) creditor_email: String,
    pub(super) creditor_name: Option<String>,
    pub(super) amount: Option<Amount>,
    /// There is something in the amount's place that is none.
    pub(super) is_inexact: bool,
    pub(super) response_text: Option<String>,
    pub(super) reference_numbers: Vec<String>,
    pub(super) confidence: Option<f64>,
}

impl Content {
    /// Names of the client by which two mails are of the same one: the case number in one spelling, and the name's words.
    pub(super) fn clients(&self) -> impl Iterator<Item = String> {
        let Who { number, words } = self.who();
        let words = words.into_iter().collect::<Vec<_>>().join(" ");
        let name = (!words.is_empty()).then(|| format!("name:{words}"));
        number.map(|number| format!("nr:{number}")).into_iter().chain(name)
    }

    /// The number in one spelling, and the name's words.
    pub(super) fn who(&self) -> Who {
        let name = self.client_name.as_deref().map(fold).unwrap_or_default();
        let words = name.split(|letter: char| !letter.is_alphanumeric());
        let words = words.filter(|word| !word.is_empty() && !TITLES.contains(word));
        let number = self.client_aktenzeichen.as_ref().map(|number| number.replace('_', "/"));
        Who { number, words: words.map(str::to_owned).collect() }
    }

    /// What all mails of one creditor have in common.
    pub(super) fn sender(&self) -> Option<String> {
        sender_key(&self.creditor_email)
    }

    pub(super) fn mark_key(&self) -> Option<(String, String)> {
        Some((self.clients().next()?, self.creditor_email.to_lowercase()))
    }
}

/// What the mail's last update says, else what was read in it.
pub(super) fn content(mail: &OldMail) -> Content {
    let read = mail.row.object("extracted_data").unwrap_or_default();
    let payload = mail.updates.last().and_then(|update| update.object("payload"));
    let (row, amount) = match &payload {
        Some(payload) => (payload, "new_debt_amount"),
        None => (&read, "debt_amount"),
    };
    let reference_numbers = row.texts("reference_numbers");
    let is_case = |number: &&String| CASE_NUMBER.as_ref().is_some_and(|form| form.is_match(number));
    let text = row.text(amount);
    let exact = text.as_deref().and_then(exact);
    Content {
        client_name: row.text("client_name"),
        client_aktenzeichen: row
            .text("client_aktenzeichen")
            .or_else(|| reference_numbers.iter().find(is_case).cloned()),
        creditor_email: row
            .text("creditor_email")
            .or_else(|| mail.row.text("from_email"))
            .unwrap_or_default(),
        creditor_name: row.text("creditor_name"),
        amount: exact,
        is_inexact: text.is_some() && exact.is_none(),
        response_text: row.text("response_text").or_else(|| read.text("summary")),
        reference_numbers,
        confidence: row
            .text("extraction_confidence")
            .or_else(|| read.text("confidence"))
            .and_then(|text| text.parse().ok())
            .filter(|confidence| (0.0..=1.0).contains(confidence)),
    }
}

/// An amount as it was stored, digit by digit; nothing is rounded.
pub(super) fn exact(text: &str) -> Option<Amount> {
    let decimal = || Decimal::from_scientific(text).ok().and_then(|value| Amount::from_decimal(value).ok());
    text.parse().ok().or_else(decimal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::legacy::old::Row;
    use serde_json::{Value, json};

    fn of(extracted: Value, payload: Option<Value>) -> Content {
        let row = |value: Value| if let Value::Object(fields) = value { Row(fields) } else { Row::default() };
        let updates = payload.into_iter().map(|payload| row(json!({ "payload": payload }))).collect();
        content(&OldMail {
            id: 1,
            row: row(json!({ "from_email": "A@b.example", "extracted_data": extracted })),
            updates,
        })
    }

    #[test]
    fn an_amount_is_taken_digit_by_digit_or_not_at_all() {
        let amount = |text: &str| {
            let content = of(
                json!({}),
                Some(serde_json::from_str(&format!("{{\"new_debt_amount\": {text}}}")).unwrap()),
            );
            (content.amount.map(|amount| amount.to_string()), content.is_inexact)
        };
        let exact = |text: &str| (Some(text.to_owned()), false);
        assert_eq!(amount("850.10"), exact("850.10"));
        assert_eq!(amount("\"850.1\""), exact("850.10"));
        assert_eq!(amount("8.5e2"), exact("850.00"));
        assert_eq!(amount("0"), exact("0.00"));
        assert_eq!(amount("null"), (None, false));
        for inexact in ["12.3456", "0.30000000000000004", "-5", "\"1.234,56\"", "1e30"] {
            assert_eq!(amount(inexact), (None, true), "{inexact}");
        }
    }

    #[test]
    fn a_client_is_the_same_under_both_spellings_and_both_orders_of_the_name() {
        let clients = |content: Content| content.clients().collect::<Vec<_>>();
        let written =
            of(json!({ "client_name": "Eva ADLER", "reference_numbers": ["TK-1", "2024_118"] }), None);
        let unfinished =
            of(json!({}), Some(json!({ "client_name": "Adler, Eva", "client_aktenzeichen": "2024/118" })));
        assert_eq!(clients(written), clients(unfinished));
        assert_eq!(of(json!({ "reference_numbers": "x" }), None).clients().count(), 0);
    }
}
