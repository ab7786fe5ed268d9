//! File numbers: the law firm's own (`Aktenzeichen`) and the creditor's side's.
//!
//! Owns the labels and shapes of such numbers and what is none: telephone, bank, register and court numbers, dates, money.
//! Whose number it is follows from the label; a number without one is ours only in the subject and only in our shapes.

use super::flow::{Unit, tail};
use super::pattern;
use super::statement::gives_orders;
use regex::Regex;
use std::sync::LazyLock;

const OWN_WORDS: &str = r"(?:geschäfts?-?)?(?:zeichen|zch\.?|aktenzeichen|aktenz\.?|akten-?(?:nr|nummer)\.?|akte|az\b\.?|a\.\s?z\.|gz\b\.?|geschäftszahl|geschäftsz\.?|zahl|referenz(?:nummer)?|reference|ref\b\.?|file)";
const BETWEEN: &str = r"(?:\s*/\s*unser\p{L}*\s+\p{L}+)?\s*(?:\([^)\n]{0,40}\))?\s*(?:(?:nr\.?|no\.?|number|lautet|ist|war|is|glaube?|ich|wohl|müsste|sein)\s*){0,5}[:.#;]?\s*";
const OWN_VALUE: &str = r"([0-9]+(?:[_/-][0-9]+)*)";

/// Characters before a number that can say whose it is.
const NEAR: usize = 120;

/// "Ihr Zeichen 2024/907" in what the creditor writes.
static YOURS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?i)\b(?:ihr(?:e|em|en|er|es)?|dortige[rsnm]?|your)\s+(?:o\.\s?g\.\s+)?(?:\p{{L}}+\s+)?{OWN_WORDS}{BETWEEN}{OWN_VALUE}"
    ))
});
/// "Unser Az. 2024/907" in our own letter, thus in the history or in the subject that we chose.
static OURS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?i)(?:\b(?:unser|unserem|mein|our)\s+|\bmandant\p{{L}}*\b.{{0,60}}?|\bkanzlei\b.{{0,40}}?)\b{OWN_WORDS}{BETWEEN}{OWN_VALUE}"
    ))
});
static ANY_AZ: LazyLock<Regex> =
    LazyLock::new(|| pattern(&format!(r"(?i)\b(?:az\b\.?|aktenzeichen|akte){BETWEEN}{OWN_VALUE}")));
/// "Ihre Anfrage vom 11.02.2026, Az. 2024/907": their label, but in what they say of our letter.
static YOUR_LETTER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?i)\bihr\p{{L}}*\s+(?:\p{{L}}*anfrage|schreiben|brief|e-?mail|nachricht|mandant\p{{L}}*|klient\p{{L}}*|fax|zuschrift|plan)\b(?:[^.;\n]|\.[0-9]){{0,60}}?\b(?:az\b\.?|aktenzeichen|akte|zeichen){BETWEEN}{OWN_VALUE}"
    ))
});
/// "auf Ihr Schreiben vom 19.02.2026 (2024/907)".
static IN_PARENTHESES: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?i)\bihr\p{{L}}*\s+(?:\p{{L}}*anfrage|schreiben|brief|e-?mail|nachricht|fax|zuschrift)\b(?:[^.;()\n]|\.[0-9]){{0,60}}\(\s*(?:[^()0-9]{{3,50}},\s*)?{OWN_VALUE}\s*\)|\bihr\p{{L}}*\s+(?:\p{{L}}*anfrage|schreiben|brief|e-?mail|fax|zuschrift)\s+(?:mit dem zeichen\s+|zum zeichen\s+|zu\s+)?{OWN_VALUE}(?:[\s,;:.]|$)|\bsie (?:fragten|schrieben|erkundigten)\b[^.;\n]{{0,40}}\b(?:zeichen|aktenzeichen|az)\b\.?:?\s*{OWN_VALUE}|\bbei ihnen:?\s+(?:unter\s+)?{OWN_VALUE}|\b(?:herrn?|frau|mandant\p{{L}}*)\s[^.;()\n]{{3,60}}\(\s*(?:(?:az|aktenzeichen|akte|zeichen)\b\.?:?\s*)?{OWN_VALUE}\s*\)"
    ))
});
static BARE: LazyLock<Regex> = LazyLock::new(|| pattern(r"[0-9]+(?:[_/-][0-9]+)?"));
static OUR_SHAPE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^(?:[0-9]{4,7}|[0-9]{2,5}_[0-9]{2}|(?:19|20)[0-9]{2}[/_-][0-9]{1,6}|[0-9]{1,5}/[0-9]{2})$")
});

/// All different case numbers of the firm that the new text labels as such.
pub(super) fn own_numbers(text: &str) -> Vec<String> {
    let mut numbers: Vec<String> =
        YOURS.captures_iter(text).filter_map(|found| plausible(found.get(1)?.as_str())).collect();
    numbers.dedup();
    numbers
}

fn plausible(number: &str) -> Option<String> {
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    (digits >= 3).then(|| number.to_owned())
}

/// The law firm's own case number: labelled in the text or subject, bare in the subject, labelled in the history.
pub(super) fn aktenzeichen(subject: &str, current: &str, history: &str) -> Option<String> {
    let labelled = |label: &Regex, text: &str| {
        label.captures_iter(text).find_map(|found| plausible(found.iter().skip(1).flatten().next()?.as_str()))
    };
    let shaped =
        |label: &Regex, text: &str| labelled(label, text).filter(|number| OUR_SHAPE.is_match(number));
    labelled(&YOURS, current)
        .or_else(|| labelled(&YOURS, subject))
        .or_else(|| shaped(&YOUR_LETTER, current))
        .or_else(|| shaped(&IN_PARENTHESES, current))
        .or_else(|| shaped(&OURS, subject))
        .or_else(|| shaped(&ANY_AZ, subject))
        .or_else(|| bare(subject))
        .or_else(|| labelled(&OURS, history))
        .or_else(|| labelled(&YOURS, history))
        .or_else(|| shaped(&ANY_AZ, history))
}

/// A number in one of our shapes that stands by itself in the subject and has no label of the creditor's before it.
fn bare(subject: &str) -> Option<String> {
    BARE.find_iter(subject).find_map(|found| {
        let before = subject.get(..found.start()).unwrap_or_default();
        let after = subject.get(found.end()..).unwrap_or_default();
        let glued = before
            .ends_with(|c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_' | '#' | ','))
            || before.trim_end().ends_with('#')
            || (before.ends_with('/') && !before.ends_with(" /"))
            || after.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '/' | '_' | '€'))
            || (after.starts_with(['.', ',', '-', ':'])
                && after.chars().nth(1).is_some_and(|c| c.is_ascii_digit()))
            || AFTER_MONEY.is_match(after);
        let labelled = THEIR_LABEL_BEFORE.is_match(tail(before, NEAR));
        let number = found.as_str();
        (!glued && !labelled && OUR_SHAPE.is_match(number) && !YEAR_ALONE.is_match(number))
            .then(|| number.to_owned())
    })
}

static YEAR_ALONE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(?:19|20)[0-9]{2}$"));
static AFTER_MONEY: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)^\s?(?:eur|€|%|uhr|kb|mb|seiten)"));

const NOUNS: &str = r"(?:\p{L}+-?)?(?:zeichen|nummer|konto|vertrag|vertrags|rechnung|polizze|police|buchung|auftrag|bestellung|darlehen|kredit|debitor|debitoren|schein|akte|karte|mietobjekt|mitglied|bescheid|vorgang|schadenfall|schaden|fall|geschäftszeichen|kommission|ausweis|projekt|objekt)(?:e?s)?(?:-?\s?(?:nr|no|nummer|id)\b\.?)?|(?:kunden|st|steuer|kd|kto|rg|re|rech|vers|vertr|vsnr|vn|mitgl|pol|az|gz|stamm|beitrags|betriebs|akten|ordnungs|referenz|inkasso)\.?\s?-?\s?(?:nr|no|nummer|id)\b\.?|(?:kdnr|kundennr|rgnr|az|gz|uz|ref|kd|rg|kunde|kundin)\b\.?|(?:invoice|account|contract|reference|customer|file|policy|order|case|booking|loan)(?: (?:no|number|ref|id)\b\.?)?|our ref(?:erence)?\b\.?|\p{L}+-(?:nr|id)\b\.?|\p{L}+nr\b\.?";

static THEIR_LABEL_BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?i)(?:^|[^\p{{L}}])(?:{NOUNS})\s*(?:nr\.?|no\.?)?\s*[:.#]?\s*(?:\p{{Lu}}{{1,4}}\s)?$"
    ))
});
static LABEL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?i)(?P<whose>\b(?:ihr|dortig|your)\p{{L}}*\s+(?:\p{{L}}+\s+)?)?\b(?P<label>{NOUNS})\s*(?:\([^)\n]{{0,40}}\))?\s*(?:(?:unser|bei unser)\p{{L}}*\s+\p{{L}}+\s*)?(?:nr\.?|nummer|no\.?|number|bleibt|lautet|ist|is|mit der nummer)?\s*[:.#]?\s*(?P<value>(?-i:[0-9]+/[0-9]{{2}}[ ][A-Z]{{2}}[0-9]{{0,4}}\b|(?:\p{{Lu}}{{1,4}}\s)?(?:[\p{{Lu}}0-9][\p{{L}}0-9]*|\p{{Ll}}{{1,4}}-[0-9]+)(?:[-./_]{{1,2}}[\p{{L}}0-9]+)*(?:(?:[ \x{{a0}}][0-9]{{3,8}}\b){{1,3}}(?:[ \x{{a0}}][0-9]{{1,2}}\b|/[0-9]{{1,4}}\b)?|[ ][A-Z]{{1,2}}[0-9]{{2,4}}\b)?))"
    ))
});
/// A code of capitals and digits is a number even behind a word that is no label: "Finanzkauf AB/12-3456".
static CODE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:\p{Lu}{2,5}[-/][0-9][0-9A-Z]*(?:[-/.][0-9A-Z]+)*|\p{Lu}-[0-9]{5,}|[0-9]{2,6}\p{Lu}{1,4}[0-9]{4,}|\p{Lu}{2,4} [0-9]{2,}(?:-[0-9]+)+|\p{Lu}{2,4}(?: [0-9]{1,4}){3,5})\b",
    )
});
static ALONE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^[A-Z]{0,4}[-/ ]?[1-9][0-9]*(?:[-./ ][0-9A-Z]+)*$"));

static NOT_OURS_LABEL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^(?:steuer-?id|ust|mwst|vat|telefon|tel|fax|mobil|ruf|haus|zimmer|service|hotline|durchwahl|konto|bank|register|handelsregister|steuernummer ust)\p{L}*-?(?:nr|nummer|id)\b|rufnummer\b|hausnummer|telefonnummer|faxnummer|durchwahl|identifikationsnummer|ident-?nr|registernummer|lastzeichen|satzzeichen|fremdgeldkonto|treuhandkonto|anderkonto|ticketnummer|ust-?id|gläubiger-id|gläubiger-?identifikationsnummer",
    )
});
static REGISTER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(?:registered\b.{0,40}|\bregistriert\b.{0,60}|\bhr[ab]\b|register\p{L}*|\bvat\b|\bust\b|\biban\b|\bbic\b|\bblz\b|bankverbindung|gläubiger-?id\p{L}*|telefon|\btel\b\.?|\bfax\b|rufnummer\b|hotline)[^,;\n]{0,20}$",
    )
});
static COURT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)(?:gericht\p{L}*|\b(?:ag|lg|olg)\b|bescheid\p{L}*|urteil\p{L}*|titel|court).{0,60}$")
});
static COURT_LABEL: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)^(?:gz|az|geschäftszeichen|geschäftsnummer|aktenzeichen|case)"));
static OWN_LABEL: LazyLock<Regex> = LazyLock::new(|| pattern(&format!(r"(?i)^{OWN_WORDS}")));
static DATE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^[0-9]{1,2}\.[0-9]{1,2}\.(?:[0-9]{2,4})?$|^(?:[0-9]{1,2}/)?(?:19|20)[0-9]{2}$")
});
/// "34.70": a number with cents.
static AMOUNT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^[0-9]{1,3}(?:\.[0-9]{3})*,[0-9]{2}$|^[0-9]{1,3}(?:[,'][0-9]{3})*\.[0-9]{2}$")
});

/// "2024/2025", "2024/25": a season, if the second year follows the first.
static SEASON: LazyLock<Regex> = LazyLock::new(|| pattern(r"^((?:19|20)[0-9]{2})/((?:19|20)?[0-9]{2})$"));

fn is_season(value: &str) -> bool {
    let years = SEASON.captures(value).and_then(|years| {
        let year = |at| years.get(at)?.as_str().parse::<u32>().ok();
        Some((year(1)? % 100, year(2)? % 100))
    });
    years.is_some_and(|(first, second)| second == (first + 1) % 100)
}

static PHONE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^0[1-9][0-9]{1,4}[ /][0-9]"));
static BANK: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:[A-Z]{2}[0-9]{2}(?:\s?[0-9A-Z]{4}){3}|[A-Z]{2}[0-9]{2}\s|(?:HR[AB]|BIC|IBAN|DE|USt|VR|GnR|AG|FN|ISO|UTF|CHE-|[IVX]+/|COVID|EU|BLZ)\b)",
    )
});

/// The creditor's numbers in the subject and the new text, in order of appearance.
pub(super) fn creditors(
    subject: &str,
    units: &[Unit],
    own: Option<&str>,
    asked_for_number: bool,
) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut first_column = false;
    let texts =
        units.iter().filter(|unit| !gives_orders(&unit.text)).map(|unit| (unit.text.as_str(), unit.row));
    for (line, row) in std::iter::once((subject, false)).chain(texts) {
        let mut here: Vec<(usize, String)> = Vec::new();
        if row && first_column {
            let cell = line.split("  ").next().unwrap_or_default();
            here.extend(number(cell, "").filter(|_| ALONE.is_match(cell)).map(|number| (0, number)));
        }
        first_column = COLUMN_OF_NUMBERS.is_match(line) || (first_column && !here.is_empty());
        labelled(line, &mut here);
        codes(line, own, &mut here);
        let alone = line.trim().trim_end_matches('.');
        if here.is_empty()
            && asked_for_number
            && line != subject
            && alone.bytes().filter(u8::is_ascii_digit).count() >= 5
            && ALONE.is_match(alone)
            && !PHONE.is_match(alone)
        {
            here.extend(number(alone, "").map(|number| (0, number)));
        }
        here.sort_by_key(|(start, _)| *start);
        for (_, number) in here {
            let same = |other: &str| squeezed(other) == squeezed(&number);
            if !own.is_some_and(same) && !found.iter().any(|known| same(known)) && found.len() < MOST_NUMBERS
            {
                found.push(number);
            }
        }
    }
    found
}

/// The numbers of a line that a label stands before, with their places.
fn labelled(line: &str, here: &mut Vec<(usize, String)>) {
    let mut at = 0;
    while let Some(label) = LABEL.captures_at(line, at) {
        let (Some(value), Some(name)) = (label.name("value"), label.name("label")) else { break };
        let before = tail(line.get(..name.start()).unwrap_or_default(), NEAR);
        let yours = label.name("whose").is_some() && OWN_LABEL.is_match(name.as_str());
        let court = COURT.is_match(before)
            && COURT_LABEL.is_match(name.as_str())
            && !before.to_lowercase().trim_end().ends_with("unser");
        let excluded = yours || court || NOT_OURS_LABEL.is_match(name.as_str()) || REGISTER.is_match(before);
        match number(value.as_str(), line.get(value.end()..).unwrap_or_default()) {
            Some(number) if !excluded => {
                at = value.start() + number.len();
                here.push((value.start(), number));
            }
            Some(_) => at = value.end(),
            // The label may be a part of the real one: "Rechnung Nr. 5" is found from its second word.
            None => at = name.end().max(at + 1),
        }
        if !line.is_char_boundary(at) || at >= line.len() {
            break;
        }
    }
}

/// Codes that are numbers whatever stands before them.
fn codes(line: &str, own: Option<&str>, here: &mut Vec<(usize, String)>) {
    for code in CODE.find_iter(line) {
        let before = tail(line.get(..code.start()).unwrap_or_default(), NEAR);
        let known =
            here.iter().any(|(start, number)| *start <= code.start() && code.end() <= start + number.len());
        let glued = before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '-' | '/' | '.' | '_'));
        let is_own = own.is_some_and(|own| code.as_str().contains(own));
        if !known
            && !is_own
            && !glued
            && !REGISTER.is_match(before)
            && !COURT.is_match(before)
            && code.as_str().bytes().filter(u8::is_ascii_digit).count() >= 4
        {
            here.extend(
                number(code.as_str(), line.get(code.end()..).unwrap_or_default())
                    .map(|number| (code.start(), number)),
            );
        }
    }
}

/// The heading of a table whose first column holds numbers.
static COLUMN_OF_NUMBERS: LazyLock<Regex> =
    LazyLock::new(|| pattern(&format!(r"(?i)^(?:{NOUNS})\s{{2,}}\p{{L}}.*$")));

/// A mail about one matter has a handful of numbers; more come from a list.
const MOST_NUMBERS: usize = 20;

fn squeezed(number: &str) -> String {
    number.chars().filter(|c| !c.is_whitespace()).collect()
}

/// A value as a number, None if it is a date, a year, money, a bank's or a register's.
fn number(value: &str, after: &str) -> Option<String> {
    let cut_off =
        after.starts_with(',') && after.chars().nth(1).is_some_and(|c| c.is_ascii_digit() || c == '-');
    let value = if cut_off { value.rsplit_once([' ', '\u{a0}'])?.0 } else { value };
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    let money = AFTER_MONEY.is_match(after) && !cut_off;
    let fits = digits >= 3
        && value.len() <= 40
        && !money
        && !AMOUNT.is_match(value)
        && !DATE.is_match(value)
        && !is_season(value)
        && !BANK.is_match(value);
    fits.then(|| value.trim_end_matches('.').replace('\u{a0}', " "))
}
