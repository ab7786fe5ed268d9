//! Numbers that name the matter: the firm's own case number, and the creditor's side's numbers.

use super::pattern;
use crate::extraction::Mail;
use regex::Regex;
use std::sync::LazyLock;

/// The forms of a case number of the firm: 542900, 1381_25, 2024/118, 87/26, 2025-00042.
const CASE: &str = r"[0-9]{4}-[0-9]{5}|[0-9]{1,4}[_/][0-9]{2,4}|[0-9]{4,8}";

static LABELLED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?i)\b(?:ihr(?:e[mnrs]?)?|your)\s+(?:zeichen|az|akz|aktenzeichen|gz|geschäftszeichen|geschäftszahl|akte|aktennummer|ref(?:erence|erenz)?|file|anfrage)\b\.?\s*(?:nr\.?|no\.?)?\s*[:#]?\s*({CASE})(?:[^0-9A-Za-z/_-]|[/ ][A-Za-z]{{1,3}}\b|$)"
    ))
});
/// In our own words: the subject of an answer and the quoted letter say "unser Zeichen".
static OURS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?i)\b(?:unser(?:em)?|our)\s+(?:zeichen|az|aktenzeichen|ref(?:erence)?)\b\.?\s*[:#]?\s*({CASE})(?:[^0-9A-Za-z/_-]|$)"
    ))
});
static IN_SUBJECT: LazyLock<Regex> =
    LazyLock::new(|| pattern(&format!(r"(?:^|[\s(\[,:–])({CASE})(?:[\s)\],:–]|$)")));
/// Words before a number that make it the creditor's.
static THEIRS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(?:konto|kunden|kd|nr|nummer|rechnung|vertrag|police|polizze|kassenzeichen|mitglied|beleg|ticket|vorgang|invoice|account|vom|iban|tel|fax)[a-zäöü]*\.?:?-?\s*(?:nr\.?|nummer)?\s*#?$",
    )
});

/// The firm's case number exactly as the mail writes it.
pub(super) fn case_number(mail: &Mail<'_>) -> Option<String> {
    let labelled = |text: &str| {
        LABELLED.captures(text).and_then(|found| found.get(1)).map(|number| number.as_str().to_owned())
    };
    let ours = |text: &str| {
        OURS.captures(text).and_then(|found| found.get(1)).map(|number| number.as_str().to_owned())
    };
    labelled(&mail.text.current)
        .or_else(|| labelled(mail.subject))
        .or_else(|| is_answer(mail.subject).then(|| ours(mail.subject)).flatten())
        .or_else(|| in_subject(mail.subject))
        .or_else(|| ours(&mail.text.history))
}

fn is_answer(subject: &str) -> bool {
    static ANSWER: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)^\s*(?:aw|re|antw|wg|fwd?)\s*:"));
    ANSWER.is_match(subject)
}

fn in_subject(subject: &str) -> Option<String> {
    let numbers = IN_SUBJECT.captures_iter(subject).filter_map(|found| found.get(1));
    let own = numbers.filter(|number| !THEIRS.is_match(subject.get(..number.start()).unwrap_or_default()));
    let mut own: Vec<&str> = own.map(|number| number.as_str()).collect();
    own.dedup();
    match own.as_slice() {
        [only] => Some((*only).to_owned()),
        _ => None, // two numbers without a label: which is ours is a guess
    }
}

static CREDITORS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?ix)
        (?:\bunser(?:e[mnrs]?)?\s+(?:\w*zeichens?|az\.?|\w*(?:nummer|nr\.?|vertrags?))(?:\s+(?:bleibt|lautet|ist))?
         |\b(?:\w*konto|kunden-?(?:nummer|nr\.?)|kd\.?-?\s?nr\.?|\w*vertrag(?:s(?:nummer|nr\.?))?|\w*versicherungs?(?:nummer|nr\.?)|polizze|police|kassenzeichen|mitglieds(?:nummer|nr\.?)|rechnung|buchung|\w*auftrag|debitor|finanzkauf|schadens?nummer|steuernummer|invoice|account|contract|customer))
        \s*(?:nr\.?|no\.?|nummer|number)?\s*(?:\([^)]{0,40}\))?\s*[:\#]?\s+
        (?-i:((?:[A-Z]{1,4}\s)?[A-Z0-9][A-Za-z0-9./_-]*[0-9][A-Za-z0-9./_-]*(?:\s[0-9]{4}\b)?))",
    )
});

static IBAN: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[A-Z]{2}[0-9]{2}\b"));

/// The creditor's side's numbers in order of appearance, at most ten.
pub(super) fn creditors_numbers(mail: &Mail<'_>, own: Option<&str>) -> Vec<String> {
    let mut numbers: Vec<String> = Vec::new();
    for text in [mail.subject, mail.text.current.as_str()] {
        for found in CREDITORS.captures_iter(text) {
            let number = found
                .get(1)
                .map(|number| number.as_str().trim_end_matches(['.', '/', '-', '_']))
                .unwrap_or_default();
            let fits = number.len() > 3 && number.chars().filter(char::is_ascii_digit).count() > 2;
            let is_date = number.split('.').count() == 3
                && number.len() <= 10
                && number.split('.').all(|part| part.len() <= 4);
            if fits
                && !is_date
                && !IBAN.is_match(number)
                && Some(number) != own
                && !numbers.iter().any(|known| known == number)
            {
                numbers.push(number.to_owned());
            }
        }
    }
    numbers.truncate(10);
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail_text::MailText;

    fn numbers(subject: &str, current: &str, history: &str) -> (Option<String>, Vec<String>) {
        let text = MailText { current: current.into(), history: history.into() };
        let mail = Mail { subject, from_email: "a@b.example", from_name: None, text: &text };
        let own = case_number(&mail);
        let theirs = creditors_numbers(&mail, own.as_deref());
        (own, theirs)
    }

    #[test]
    fn our_number_and_theirs_are_told_apart() {
        assert_eq!(
            numbers("", "Ihr Zeichen: 2024/118, unser Zeichen: AB-7712", ""),
            (Some("2024/118".into()), vec!["AB-7712".into()])
        );
        assert_eq!(
            numbers("Re: Anfrage 512345", "Kundennummer 998877 offen", ""),
            (Some("512345".into()), vec!["998877".into()])
        );
        assert_eq!(numbers("Rechnung 512345", "", ""), (None, vec!["512345".into()]));
        assert_eq!(numbers("Anfrage 512345 / 612345", "", ""), (None, vec![]));
        assert_eq!(numbers("AW: Plan", "Nein.", "Unser Zeichen: 87_26"), (Some("87_26".into()), vec![]));
        assert_eq!(numbers("", "Rechnung vom 03.04.2025", ""), (None, vec![]));
    }
}
