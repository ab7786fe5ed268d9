//! Who the mail is about and who writes: names, as signed or labelled, never made up from a domain.

use super::pattern;
use crate::extraction::Mail;
use regex::Regex;
use std::sync::LazyLock;

/// One word of a name: capital first, apostrophes and double names included.
const WORD: &str = r"\p{Lu}[\p{L}'’]*(?:-\p{Lu}[\p{L}'’]*)*";
const PARTICLES: &str = r"(?:(?:von|van|zu|zur|zum|vom|der|den|de|del|di|da|la|le|und)[ \t]+)*";
const TITLES: &str = r"(?:(?:Dr|Prof|Mag|Dipl|Ing|med|jur)\.?(?:-Ing\.?)?\s+)*";

static LABELLED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?im)^\s*(?:ihr(?:e|en)?\s+)?(?:schuldner|mandant|kund|versicherungsnehmer|mieter|debtor|client|darlehensnehmer|mitglied|patient|auftraggeber|betroffen)(?:in|e|en|er)?[ \t]*:[ \t]*(?-i:({TITLES}{PARTICLES}{WORD}(?:,?[ \t]+{PARTICLES}{WORD}){{1,4}}))"
    ))
});
static IN_PROSE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?:\b(?i:(?:ihre[mnrs]?\s+)?(?:mandant|schuldner|kund|versicherungsnehmer|mieter|patient|darlehensnehmer|mitglied|auftraggeber|teilnehmer)(?:in|en|s|e|er)?|client,?|debtor,?|customer,?|wegen|in sachen|gegen|betreffend|für|zu)\s+(?:(?:Herrn?|Frau|Mr|Mrs|Ms|Eheleute)\.?\s+)?|\b(?:Herrn?|Frau|Mr|Mrs|Ms)\.?\s+){TITLES}({PARTICLES}{WORD}(?:\s+{PARTICLES}{WORD}){{1,3}})"
    ))
});
static SALUTATION: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?im)^\s*(?:sehr geehrte|guten (?:tag|morgen)|hallo|liebe|dear|hi|moin|grüß gott|werte)[^\n]*$")
});
static COMMA_FORM: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(r"({PARTICLES}{WORD}(?:\s+{PARTICLES}{WORD}){{0,2}}),\s*({WORD}(?:\s+{WORD}){{0,2}})"))
});
static PLAIN_FORM: LazyLock<Regex> =
    LazyLock::new(|| pattern(&format!(r"{TITLES}({WORD}(?:\s+{PARTICLES}{WORD}){{1,3}})")));
static AGAINST: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?m)^\s*(?:(?i:aw|re|wg|fwd?)\s*:\s*)*(.{2,80}?)\s*\./\.\s*(.{2,80}?)\s*(?:$|[–|(]|-\s|Ihr|Unser)",
    )
});

/// Words that begin with a capital and are no part of a person's name.
static NO_NAME: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^(?:ihr\w*|unser\w*|zeichen|aktenzeichen|anfrage|forderung\w*|schreiben|antwort|schuldenbereinigung\w*|plan|rechtsanw\w*|damen|herren|herrn?|frau|kolleg\w*|offene|posten|rückfrage|vergleich\w*|rechnung\w*|konto\w*|kunden\w*|girokonto|mitglied\w*|vertrag\w*|zustimmung|ratenzahlung|schlussrechnung|gegenvorschlag|mandant\w*|auskunft|mitteilung|unterhalt\w*|stellungnahme|darlehen\w*|eur|euro|gmbh|ag|kg|az|nr|ref|re|aw|wg|regarding|claim|your|the|insolvenz\w*|verfahren|amtsgericht|landgericht|sachen|polizze|versicherungsnehmer\w*|az\.?|kd|betreff|gläubiger\w*|verbraucher\w*|restschuld\w*|zahlung\w*|mahnung|ratenplan|vollmacht)$",
    )
});

/// The client as `Nachname, Vorname`, from label, prose, subject, and at last the quoted history.
pub(super) fn client(mail: &Mail<'_>, creditor: Option<&str>) -> Option<String> {
    let current = SALUTATION.replace_all(&mail.text.current, "");
    let history = SALUTATION.replace_all(&mail.text.history, "");
    let checked = |name: String| plausible(&name, mail, creditor).then_some(name);
    in_text(&current, &checked)
        .or_else(|| {
            against(mail.subject)
                .or_else(|| against(&current))
                .map(|(_, debtor)| debtor)
                .and_then(|name| formed(&name))
                .and_then(&checked)
        })
        .or_else(|| in_subject(mail.subject, &checked))
        .or_else(|| in_text(&history, &checked))
}

fn in_text(text: &str, checked: &impl Fn(String) -> Option<String>) -> Option<String> {
    let labelled = LABELLED.captures_iter(text).filter_map(|found| formed(found.get(1)?.as_str()));
    labelled.into_iter().find_map(checked).or_else(|| in_prose(text, checked))
}

/// "gegen Ihre Mandantin Anna Beispiel": what is no name after the first word may hold the second word before one.
fn in_prose(text: &str, checked: &impl Fn(String) -> Option<String>) -> Option<String> {
    let mut from = 0;
    while let Some(name) = IN_PROSE.captures_at(text, from).and_then(|found| found.get(1)) {
        if let Some(found) = formed(name.as_str()).and_then(checked) {
            return Some(found);
        }
        from = name.start();
    }
    None
}

fn in_subject(subject: &str, checked: &impl Fn(String) -> Option<String>) -> Option<String> {
    let comma = COMMA_FORM
        .captures_iter(subject)
        .filter_map(|found| formed(&format!("{}, {}", found.get(1)?.as_str(), found.get(2)?.as_str())));
    let plain = PLAIN_FORM.captures_iter(subject).filter_map(|found| formed(found.get(1)?.as_str()));
    comma
        .into_iter()
        .find_map(checked)
        .or_else(|| in_prose(subject, checked))
        .or_else(|| plain.into_iter().find_map(checked))
}

fn against(text: &str) -> Option<(String, String)> {
    let found = AGAINST.captures(text)?;
    Some((found.get(1)?.as_str().trim().to_owned(), found.get(2)?.as_str().trim().to_owned()))
}

/// `Nachname, Vorname` of a name in either form; capitals are brought to normal spelling.
fn formed(name: &str) -> Option<String> {
    let name = if name.chars().any(char::is_lowercase) { name.to_owned() } else { capitalised(name) };
    let name = TITLE.replace_all(name.trim(), "").into_owned();
    if let Some((last, first)) = name.split_once(',') {
        let (last, first) = (last.trim(), first.trim());
        return (!last.is_empty() && !first.is_empty()).then(|| format!("{last}, {first}"));
    }
    let words: Vec<&str> = name
        .split_whitespace()
        .skip_while(|word| NO_NAME.is_match(word))
        .take_while(|word| !NO_NAME.is_match(word))
        .collect();
    let is_particle = |word: &str| word.starts_with(char::is_lowercase);
    let start = words.iter().position(|word| is_particle(word)).unwrap_or(words.len().saturating_sub(1));
    let (first, last) = words.split_at_checked(start)?;
    (!first.is_empty() && !last.is_empty()).then(|| format!("{}, {}", last.join(" "), first.join(" ")))
}

static TITLE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b(?:Dr|Prof|Mag|Dipl\.-Ing|Ing)\.\s*"));

fn capitalised(name: &str) -> String {
    let mut begins = true;
    let spell = |c: char| {
        let spelt: String = if begins { c.to_uppercase().collect() } else { c.to_lowercase().collect() };
        begins = !c.is_alphabetic();
        spelt
    };
    name.chars().map(spell).collect()
}

/// Legal forms keep the spelling that they have everywhere.
fn capitalised_firm(name: &str) -> String {
    let words = capitalised(name);
    let form = |word: &str| match word {
        "Gmbh" => "GmbH".to_owned(),
        "Ag" | "Kg" | "Se" | "Ug" | "Ohg" => word.to_uppercase(),
        "Eg" => "eG".to_owned(),
        other => other.to_owned(),
    };
    words.split(' ').map(form).collect::<Vec<_>>().join(" ")
}

/// Not the creditor, not the sender, no firm, no word of the trade.
fn plausible(name: &str, mail: &Mail<'_>, creditor: Option<&str>) -> bool {
    let words: Vec<String> =
        name.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
    let is_sender = mail.from_name.is_some_and(|sender| {
        let sender = sender.to_lowercase();
        words.iter().all(|word| sender.contains(word.as_str()))
    });
    let is_creditor = creditor.is_some_and(|creditor| {
        let creditor = creditor.to_lowercase();
        words.iter().all(|word| creditor.contains(word.as_str()))
    });
    !is_sender && !is_creditor && !FIRM.is_match(name) && !words.iter().any(|word| NO_NAME.is_match(word))
}

static FIRM: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:GmbH|gGmbH|mbH|AG|KG|KGaA|OHG|SE|eG|e\.\s?G\.|UG|e\.\s?V\.|GbR|PartG|Ltd\.?|Limited|Inc\.?|LLC|B\.V\.|S\.A\.|GMBH|EG)(?:\s|$|,|\|)",
    )
});
static PRINCIPAL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?im)^\s*(?:gl(?:ä|ae)ubiger(?:in)?|auftraggeber(?:in)?|mandantschaft|unsere mandantin|creditor|principal)\s*:\s*(.{2,80}?)\s*$|(?:namens und in vollmacht|im (?:auftrag|namen)|namens|on behalf of)\s+(?:der|des|unserer mandantin|unseres mandanten|our client)?,?\s*(?-i:(\p{Lu}[^\n,.]{2,70}?(?:GmbH(?: & Co\. KG)?|AG|KG|eG|SE|Ltd|e\. ?V\.)))(?:\s|$|,)",
    )
});

static GREETING: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^(?:Ihre?|Eure?|Your)\s+(?:(?:Team|team)\s+(?:von\s+|der\s+|vom\s+|at\s+)?(?:der\s+)?)?")
});

/// Who holds the claim: the principal of an agency or of lawyers, else the sending firm as signed, else as in the sender's name.
pub(super) fn creditor(mail: &Mail<'_>) -> Option<String> {
    let current = mail.text.current.as_str();
    let principal = PRINCIPAL.captures(current).and_then(|found| found.get(1).or(found.get(2)));
    if let Some(name) = principal {
        let name = name.as_str();
        return Some(if name.chars().any(char::is_lowercase) {
            name.to_owned()
        } else {
            capitalised_firm(name)
        });
    }
    if let Some((creditor, _)) = against(mail.subject).or_else(|| against(current))
        && FIRM.is_match(&creditor)
    {
        return Some(creditor);
    }
    let signed =
        current.lines().rev().take(30).map(|line| line.split([',', '|', '·']).next().unwrap_or(line).trim());
    let signed = signed.filter(|line| {
        line.len() < 80 && FIRM.is_match(line) && line.starts_with(char::is_uppercase) && !line.contains(':')
    });
    let from_name = mail
        .from_name
        .map(|name| name.split([',', '|']).next().unwrap_or(name))
        .map(|name| name.split(" - ").next().unwrap_or(name).trim());
    let signed: Vec<&str> = signed.collect();
    // A signature's first firm line below the text names the sender; the sender's own name decides between several.
    let sounds_like_sender = |line: &&&str| {
        from_name.is_some_and(|name| name.split_whitespace().next().is_some_and(|word| line.contains(word)))
    };
    signed
        .iter()
        .find(sounds_like_sender)
        .or(signed.last())
        .map(|line| GREETING.replace(line, "").into_owned())
        .or_else(|| from_name.map(str::to_owned))
        .filter(|name| !name.is_empty())
}
