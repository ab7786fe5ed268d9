//! The built-in extractor: rules over the mail's text, without network and without a model.
//!
//! Owns the order in which a mail is read: who is meant, what every figure of money is, what kind of mail it is, and only then
//! which figure, if any, is the claim. Text that gives orders to its reader is content like any other. The parts own their
//! vocabulary: `flow` the pieces of a text, `numbers` and `figures` the money in it, `labels` what a figure means, `clauses` what takes
//! that away, `statement` all of them, `amounts` the choice, `kind` the intent, `signs` what the headers add to it, `person` and
//! `names`, `references` and `creditor` the rest.

mod amounts;
mod clauses;
mod creditor;
mod figures;
mod flow;
mod kind;
mod labels;
mod names;
mod numbers;
mod person;
mod references;
mod signs;
mod statement;

pub(super) use person::folded;

use super::{ExtractedEntities, Intent, Mail};
use crate::{mail_text::MailText, write_guard::LEAST_CONFIDENCE};
use regex::Regex;
use rust_decimal::Decimal;
use shared::money::Amount;
use std::{borrow::Cow, sync::LazyLock};

/// Longest summary in characters; the portal shows it in one cell of a table.
const SUMMARY_LIMIT: usize = 300;

/// Reads a mail. The same mail always gives the same answer.
#[must_use]
pub fn extract(mail: &Mail<'_>) -> ExtractedEntities {
    let subject = crate::mail_text::read(Some(start(mail.subject, LONGEST_LINE)), None).current;
    let (read, is_cut) = excerpt(&mail.text.current);
    let text =
        MailText { current: read.into_owned(), history: start(&mail.text.history, MOST_HISTORY).to_owned() };
    let from_name = mail.from_name.map(|name| start(name, LONGEST_LINE));
    let mail = Mail { subject: subject.trim(), from_name, text: &text, ..*mail };
    let (current, history) = (text.current.as_str(), text.history.as_str());
    let units = flow::units(current);
    let lines: Vec<&str> = units.iter().map(|unit| unit.text.as_str()).collect();
    let client = names::client(mail.subject, &lines, history, mail.from_name);
    let stranger =
        |sentence: &str| client.as_ref().is_some_and(|client| names::is_about_stranger(sentence, client));
    let statement = statement::read(current, is_english(current), stranger);
    let aktenzeichen = references::aktenzeichen(mail.subject, current, history);
    let stated = statement.claim(false);
    let states_claim = stated.as_ref().is_some_and(|claim| claim.confidence > 0.8);
    if let Some(intent) = kind::not_a_reply(&mail, states_claim, aktenzeichen.is_some()) {
        return nothing(intent, 0.9);
    }
    let several = names::are_several(&units, mail.subject) || {
        let own = references::own_numbers(current);
        own.iter().any(|number| Some(number) != own.first())
    };
    let text = lines.join("\n\n");
    let unknown = kind::is_unknown(&text);
    let nothing_owed = kind::denies_claim(&text) || (stated.is_none() && kind::says_settled(&text));
    let claim = if nothing_owed { statement.claim(true) } else { stated };
    let claim = claim.filter(|_| !unknown && !several);
    let amount = claim.as_ref().and_then(|claim| amount_of(claim.cents));
    let names_claims = statement.unclear
        || statement
            .mentions
            .iter()
            .any(|mention| labels::is_claim(mention.kind) || mention.kind == labels::Kind::Part);
    let intent = kind::intent(
        mail.subject,
        &text,
        amount.is_some(),
        claim.as_ref().is_some_and(|claim| claim.cents == 0),
        names_claims,
    );
    let asked = ASKED.is_match(history);
    let confidence = claim.as_ref().map_or(0.8, |claim| if is_cut { 0.5 } else { claim.confidence });
    ExtractedEntities {
        is_creditor_reply: true,
        intent,
        client_name: client.filter(|_| !several).map(|client| client.display()),
        creditor_name: creditor::name(mail.subject, current, mail.from_name),
        // Unsure is null: an amount that a person has to check anyway must not look like one that was found.
        debt_amount: amount.filter(|_| confidence >= LEAST_CONFIDENCE),
        reference_numbers: if unknown {
            Vec::new()
        } else {
            references::creditors(mail.subject, &units, aktenzeichen.as_deref(), asked)
        },
        confidence,
        summary: claim
            .map(|claim| claim.sentence)
            .or_else(|| first_sentence(&units))
            .and_then(|sentence| summary(&sentence)),
        client_aktenzeichen: aktenzeichen.filter(|_| !several),
    }
}

/// Bytes of the subject and of the sender's name that are read.
const LONGEST_LINE: usize = 1000;
/// Bytes of the quoted history that are read: it tells whom the mail is about.
const MOST_HISTORY: usize = 100_000;
/// Bytes of the new text that are read: its start, and its end, where sums and signatures stand. A book of a mail would else hold the
/// lane for minutes; its amount is for a person.
const MOST_START: usize = 200_000;
const MOST_END: usize = 100_000;

/// What is read of a text, and whether something was left out.
fn excerpt(text: &str) -> (Cow<'_, str>, bool) {
    if text.len() <= MOST_START + MOST_END {
        return (Cow::Borrowed(text), false);
    }
    let end = text.get(text.ceil_char_boundary(text.len() - MOST_END)..).unwrap_or_default();
    (Cow::Owned(format!("{}\n\n{end}", start(text, MOST_START))), true)
}

fn start(text: &str, length: usize) -> &str {
    text.get(..text.floor_char_boundary(length)).unwrap_or(text)
}

/// The amounts that a mail's subject and new text write, but for passages that give orders to their reader: what somebody else's
/// reading of it may name.
pub(super) fn written_amounts(subject: &str, current: &str) -> Vec<Amount> {
    let mut units = flow::units(start(subject, LONGEST_LINE));
    units.extend(flow::units(&excerpt(current).0));
    units.retain(|unit| !statement::gives_orders(&unit.text));
    let cents = figures::written(&units, is_english(current));
    cents.into_iter().filter_map(amount_of).collect()
}

/// Whether a mail speaks to the machine that reads it.
pub(super) fn orders_its_reader(subject: &str, current: &str) -> bool {
    statement::gives_orders(subject)
        || current.lines().any(statement::gives_orders)
        || statement::gives_orders(&excerpt(current).0)
}

fn amount_of(cents: i64) -> Option<Amount> {
    Amount::from_decimal(Decimal::new(cents, 2)).ok()
}

/// The entities of what is no creditor's reply.
pub(super) fn nothing(intent: Intent, confidence: f64) -> ExtractedEntities {
    ExtractedEntities {
        is_creditor_reply: false,
        intent,
        client_name: None,
        client_aktenzeichen: None,
        creditor_name: None,
        debt_amount: None,
        reference_numbers: Vec::new(),
        confidence,
        summary: None,
    }
}

/// Our own letter asks for something, the creditor's number perhaps.
static ASKED: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)\?|(?:nummer|zeichen)\b[^\n]{0,30}:\s*(?:\n|$)"));
static GERMAN: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)\b(?:der|die|das|und|ist|wir|sie|nicht|mit|forderung|betrag|summe)\b"));
static ENGLISH: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)\b(?:the|and|is|we|you|your|of|with|claim|balance)\b"));

/// Whether a mail is in English, where a comma separates thousands.
fn is_english(text: &str) -> bool {
    ENGLISH.find_iter(text).take(500).count() > GERMAN.find_iter(text).take(500).count()
}

static COURTESY: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^\s*(?:sehr geehrte|guten (?:tag|morgen)|hallo|liebe|dear|hi\b|mit \p{L}+ (?:\p{L}+ )?gr|ihr\p{L}* zeichen|unser zeichen|vielen dank)",
    )
});

/// The first sentence that says something, for a mail without a claim.
fn first_sentence(units: &[flow::Unit]) -> Option<String> {
    units
        .iter()
        .flat_map(|unit| flow::sentences(unit).into_iter().filter_map(|range| unit.text.get(range)))
        .map(str::trim)
        .find(|sentence| {
            sentence.chars().count() > 25
                && sentence.ends_with(['.', '!', '?'])
                && !COURTESY.is_match(sentence)
        })
        .map(str::to_owned)
}

/// A sentence cut to what the portal shows.
pub(super) fn summary(sentence: &str) -> Option<String> {
    let sentence = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
    if sentence.chars().count() <= SUMMARY_LIMIT {
        return (!sentence.is_empty()).then_some(sentence);
    }
    Some(sentence.chars().take(SUMMARY_LIMIT - 1).chain(['…']).collect())
}

/// A constant pattern.
#[expect(clippy::expect_used, reason = "the patterns are constants and a test compiles each")]
pub(super) fn pattern(source: &str) -> Regex {
    Regex::new(source).expect("a constant pattern is valid")
}

#[cfg(test)]
mod tests;
