//! The built-in extractor: rules over the cleaned text, no network.
//!
//! A wrong amount is far worse than a missing one, so every part answers None when in doubt. Orders to the reader that stand in a
//! mail are text like any other. Pure; the patterns are compiled once.

mod claim;
mod figures;
mod flow;
mod kind;
mod names;
mod references;

use super::{ExtractedEntities, Mail};
use regex::Regex;

/// What one mail says, by rules.
#[must_use]
pub fn extract(mail: &Mail<'_>) -> ExtractedEntities {
    let current = mail.text.current.as_str();
    if let Some(intent) = kind::no_reply(mail) {
        return ExtractedEntities {
            is_creditor_reply: false,
            intent,
            client_name: None,
            client_aktenzeichen: None,
            creditor_name: None,
            debt_amount: None,
            reference_numbers: Vec::new(),
            confidence: 0.9,
            summary: None,
        };
    }
    let claim = claim::find(current);
    let client_aktenzeichen = references::case_number(mail);
    let creditor_name = names::creditor(mail);
    ExtractedEntities {
        is_creditor_reply: true,
        intent: kind::intent(current, claim.as_ref().map(|claim| claim.amount)),
        client_name: names::client(mail, creditor_name.as_deref()),
        reference_numbers: references::creditors_numbers(mail, client_aktenzeichen.as_deref()),
        client_aktenzeichen,
        creditor_name,
        debt_amount: claim.as_ref().map(|claim| claim.amount),
        confidence: claim.as_ref().map_or(0.9, |claim| claim.confidence),
        summary: claim.map(|claim| claim.sentence),
    }
}

/// A pattern that is a constant of this program.
#[expect(clippy::expect_used, reason = "the patterns are constants, and the tests compile each of them")]
fn pattern(source: &str) -> Regex {
    Regex::new(source).expect("a constant pattern compiles")
}
