//! The client's name, as `Nachname, Vorname`.
//!
//! Owns the words around a name that tell whose it is. Names are found by their place, never by a list of names; which client it is
//! remains the matching's to decide.

use super::{
    flow::{Unit, tail},
    pattern,
    person::{Name, PARTICLE, PARTICLES, WORD, folded, name_at, next_name},
};
use regex::Regex;
use std::collections::BTreeMap;
use std::sync::LazyLock;

static YOUR_CLIENT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:ihr|dortig)\p{L}*\s+(?:o\.\s?g\.\s+|oben genannte\p{L}*\s+)?(?:mandant(?:in|en|schaft)?|klient(?:in|en)?)\b|\byour client\b",
    )
});
static OUR_CLIENT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)\b(?:mandant(?:in|en)?|klient(?:in|en)?|clients?)\b"));
static REPRESENT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)\b(?:vertreten|vertrete|vertretung (?:von|der|des)|schreiben (?:zu|wegen))\b")
});
static ROLE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:\p{L}*schuldner(?:in|s)?|steuerpflichtige[rns]?|(?:mit|wohnungs)?eigentümer(?:in|s)?|bauherr(?:in|n)?|(?:tier|kfz-|fahrzeug)halter(?:in|s)?|fahrschüler(?:in|s)?|kund(?:e|en|in)|mieter(?:in|s)?|(?:versicherungs|darlehens|kredit|leasing|beitrags)nehmer(?:in|s)?|patient(?:in|en)?|mitglied(?:s|es)?|debitor(?:in|s)?|debtor|customer|tenant|versicherte[rn]?|vertragspartner(?:in|s)?|auftraggeber(?:in|s)?|bewohner(?:in|s)?|halter(?:in|s)?|schüler(?:in|s)?|teilnehmer(?:in|s)?|antragsteller(?:in|s)?|käufer(?:in|s)?|besteller(?:in|s)?)\b",
    )
});
/// Who lends among family and friends says what the other one is to him.
static KIN: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:mein|unser)\p{L}*\s+(?:\p{L}+\s+)?(?:ex-)?(?:schwagers?|schwägerin|bruders?|schwester|neffen?|nichte|onkels?|tante|cousins?|cousine|vetters?|freund(?:es|in)?|bekannten?|nachbar(?:n|in)?|kolleg(?:en|in)|enkels?|sohn(?:es)?|tochter|vaters?|mutter|ex-?(?:mann|frau))\s",
    )
});
static HONORIFIC: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\b(?:[Hh]errn?|HERRN?|[Ff]rau|FRAU|Mr|Mrs|Ms|Miss)\b\.?\s"));
static SALUTATION: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(?:geehrte[rs]?|dear|liebe[rs]?|hallo|tag|morgen|moin|kollegin|kollege|sachbearbeiter\p{L}*|durch|ansprechpartner\p{L}*:?)[\s,]*$",
    )
});
static AGAINST: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(?:\./\.|(?:^|\s)/\s|\b(?:gegen|wegen|betreffend|betr\.|bzgl\.|bezüglich|in sachen|i\.\s?s\.(?: v\.)?|sache|ein|eine|einen|einer|i\. ?sa\.|schreiben zu|anfrage(?: zu)?|auskunft(?: zu)?|regarding|concerning|für|v\.|vs\.?)\s)",
    )
});
/// A matter and whose it is: "Ihre Anfrage zu", "das Schreiben wegen", "die Forderung gegen".
static MATTER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:\p{L}*anfrage|schreiben|brief|fax|e-?mail|\p{L}*auskunft|\p{L}*forderung\p{L}*|ansprüche|unterlagen|akte|sache|angelegenheit|fall|vertretung|darlehen|konto|vertrag|plan|ausstand|saldo)\s+(?:zu|wegen|gegen|betreffend|für|über|bezüglich|bzgl\.|in sachen|von|des|der)\s",
    )
});
static BEFORE_OUR_NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?P<name>{WORD}(?:,? (?:{PARTICLE} )*{WORD}){{1,3}})\s*[,(–-]?\s*[(]?(?i:ihr\p{{L}}*\s+(?:zeichen|az|aktenzeichen|akte|gz|zahl)|your (?:ref|file|case)|az\b|geb\.|geboren|wohnhaft|[0-9]{{4,6}}\b)"
    ))
});
static COUPLE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:eheleute\p{L}*|ehepaar\p{L}*|ihre[rn]? (?:beiden )?mandanten\b[^.]{0,80}\bund\b|vertretung\b[^.]{0,80}\b(?:frau|herrn?)\b[^.]{0,60}\bund (?:von )?(?:frau|herrn?)\b|ihre[rn]? beiden (?:mandant|klient|schuldner|kund)\p{L}*)",
    )
});

/// Names of a mail that are weighed; a letter about one client has a handful.
const MOST_NAMES: usize = 100;

/// A mail about several clients whose claims are not one: their amounts are nobody's.
static SEVERAL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:mehrere[rn]?|verschiedene[rn]?|folgende[rn]?|diverse[rn]?)\s+(?:\p{L}+\s+)?(?:kunden|kundinnen|mandanten|schuldner|mieter|personen|mitglieder|verfahren)\b|\bsammel(?:anfrage|auskunft|schreiben)",
    )
});

/// Whether a mail says that it is about several clients, or lists figures of several.
pub(super) fn are_several(units: &[Unit], subject: &str) -> bool {
    let mut listed: Vec<Vec<String>> = units
        .iter()
        .filter(|unit| unit.row && unit.text.contains(|c: char| c.is_ascii_digit()))
        .filter_map(|unit| Some(ROW_OF_A_PERSON.captures(&unit.text)?.get(1)?.as_str()))
        .filter_map(|words| Some(name_at(words)?.key()))
        .take(MOST_NAMES)
        .collect();
    listed.sort_unstable();
    listed.dedup();
    listed.len() > 2 || SEVERAL.is_match(subject) || units.iter().any(|unit| SEVERAL.is_match(&unit.text))
}

/// "Max Muster      318,20 EUR".
static ROW_OF_A_PERSON: LazyLock<Regex> =
    LazyLock::new(|| pattern(&format!(r"^({WORD}(?:,? (?:{PARTICLE} )*{WORD}){{1,2}}) {{2,}}[0-9.,]+")));

/// What the places of names in a mail add up to.
#[derive(Default)]
struct Votes(BTreeMap<Vec<String>, (u32, Option<Name>)>);

impl Votes {
    fn add(&mut self, name: Option<Name>, weight: u32) {
        let Some(name) = name.filter(|name| self.0.len() < MOST_NAMES || self.0.contains_key(&name.key()))
        else {
            return;
        };
        let entry = self.0.entry(name.key()).or_default();
        entry.0 += weight;
        if entry.1.as_ref().is_none_or(|known| name.ordered && !known.ordered) {
            entry.1 = Some(name);
        }
    }

    fn after(&mut self, label: &Regex, text: &str, weight: u32, unless_before: Option<&Regex>) {
        for found in label.find_iter(text) {
            let before = tail(text.get(..found.start()).unwrap_or_default(), 80);
            if !unless_before.is_some_and(|excluded| excluded.is_match(before)) {
                self.add(text.get(found.end()..).and_then(name_at), weight);
            }
        }
    }
}

static OUR_BEFORE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)\b(?:unser|mein|our)\p{L}*\s+(?:\p{L}+\s+)?$"));
static PREFIX: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)^(?:\s*(?:re|aw|wg|fwd?|antw)\s*:)+\s*"));

/// The one client that a mail is about; None if there is none or there are several.
pub(super) fn client(subject: &str, lines: &[&str], history: &str, from_name: Option<&str>) -> Option<Name> {
    let subject = PREFIX.replace(subject, "");
    if lines.iter().any(|line| COUPLE.is_match(line)) || COUPLE.is_match(&subject) {
        return None;
    }
    let mut votes = Votes::default();
    for line in lines {
        votes.after(&YOUR_CLIENT, line, 12, None);
        votes.after(&ROLE, line, 9, None);
        votes.after(&HONORIFIC, line, 6, Some(&SALUTATION));
        votes.after(&KIN, line, 6, None);
        votes.after(&AGAINST, line, 3, None);
        votes.after(&MATTER, line, 6, Some(&SALUTATION));
        votes.after(&OUR_CLIENT, line, 7, Some(&OUR_BEFORE));
        before_our_number(&mut votes, line, 6);
        if !line.contains(char::is_uppercase) {
            without_capitals(&mut votes, line);
        }
    }
    votes.after(&ROLE, &subject, 8, None);
    votes.after(&OUR_CLIENT, &subject, 8, None);
    votes.after(&HONORIFIC, &subject, 6, None);
    votes.after(&AGAINST, &subject, 6, None);
    before_our_number(&mut votes, &subject, 5);
    let mut at = 0;
    while let Some((start, name)) = next_name(&subject, at) {
        at = start + name.first.len() + name.last.len();
        votes.add(Some(name), 4);
    }
    // A name anywhere counts for little, unless the subject has its surname too.
    for line in lines {
        let (mut at, mut found) = (0, 0);
        while let Some((start, name)) = next_name(line, at).filter(|_| found < MOST_NAMES) {
            at = start + name.first.len() + name.last.len();
            found += 1;
            if subject.contains(name.last.as_str()) {
                votes.add(Some(name), 1);
            }
        }
    }
    for line in history.lines().filter(|line| !line.trim().is_empty()) {
        votes.after(&OUR_CLIENT, line, 5, None);
        votes.after(&HONORIFIC, line, 4, Some(&SALUTATION));
        // A letter to the client that the creditor quotes; our own to the creditor greets by the last name alone, or the sender.
        votes.after(&GREETED, line, 4, None);
    }
    let wrapped = history.replace('\n', " ");
    votes.after(&OUR_CLIENT, &wrapped, 4, None);
    votes.after(&REPRESENT, &wrapped, 4, None);
    pick(votes, &subject, lines, from_name)
}

static GREETED: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\bsehr geehrte[rs]?\s+(?:herr|frau)\s"));
static LOWER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?P<before>^|\p{L}+\s)(?:herrn?|frau)\s(?P<first>\p{Ll}{2,}(?:-\p{Ll}+)*)\s(?P<last>\p{Ll}{3,}(?:-\p{Ll}+)*)",
    )
});

/// "der herr volkmar muster schuldet uns", in a mail that uses no capitals.
fn without_capitals(votes: &mut Votes, line: &str) {
    for found in LOWER.captures_iter(line) {
        let part = |name: &str| found.name(name).map_or("", |part| part.as_str());
        if !SALUTATION.is_match(part("before")) {
            let words = format!("{} {}", in_capitals(part("first")), in_capitals(part("last")));
            votes.add(name_at(&words), 6);
        }
    }
}

/// Each part of a name with its first letter in capitals.
fn in_capitals(word: &str) -> String {
    let mut next_is_first = true;
    word.chars()
        .flat_map(|c| {
            let first = std::mem::replace(&mut next_is_first, c == '-');
            if first { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

fn before_our_number(votes: &mut Votes, line: &str, weight: u32) {
    for found in BEFORE_OUR_NUMBER.captures_iter(line) {
        votes.add(found.name("name").and_then(|name| Some(next_name(name.as_str(), 0)?.1)), weight);
    }
}

fn pick(votes: Votes, subject: &str, lines: &[&str], from_name: Option<&str>) -> Option<Name> {
    let sender: Vec<String> =
        from_name.unwrap_or_default().split(|c: char| !c.is_alphanumeric() && c != '-').map(folded).collect();
    let named_twice = |name: &Name| lines.iter().filter(|line| line.contains(name.last.as_str())).count() > 1;
    let mut best: Option<(u32, Name)> = None;
    let named: Vec<Name> =
        votes.0.values().filter(|(weight, _)| *weight >= 6).filter_map(|(_, name)| name.clone()).collect();
    for (key, (weight, name)) in votes.0 {
        let Some(name) = name else { continue };
        let is_sender = key.iter().all(|word| sender.contains(word));
        let weight = if is_sender {
            0
        } else {
            weight + u32::from(named_twice(&name)) + 3 * u32::from(subject.contains(name.last.as_str()))
        };
        match &best {
            // Two people in the place of the client: the mail is about both.
            Some((known, other)) if weight >= 12 && *known >= 12 && !related(&name, other) => return None,
            Some((known, _)) if *known >= weight => {}
            _ if weight >= 4 => best = Some((weight, name)),
            _ => {}
        }
    }
    let best = best?.1;
    // "von der Heide" somewhere else in the mail is the same name in full.
    let fuller = named.into_iter().find(|name| {
        let (short, long) = (best.key(), name.key());
        long.len() > short.len()
            && short.iter().all(|word| long.contains(word))
            && PARTICLES.is_match(&name.last)
    });
    Some(fuller.unwrap_or(best))
}

/// A name and a shorter or longer form of it, or two people of one family name of whom one was only mentioned.
fn related(one: &Name, other: &Name) -> bool {
    let (one, other) = (one.key(), other.key());
    one.iter().all(|word| other.contains(word)) || other.iter().all(|word| one.contains(word))
}

/// Whether a sentence names somebody, with "Herr", "Frau" or as client or customer, and never the client.
pub(super) fn is_about_stranger(sentence: &str, client: &Name) -> bool {
    let mut votes = Votes::default();
    for label in [&*YOUR_CLIENT, &*ROLE, &*HONORIFIC] {
        votes.after(label, sentence, 1, Some(&OUR_BEFORE));
    }
    let key = client.key();
    let is_client = |other: &Vec<String>| {
        key.iter().all(|word| other.contains(word)) || other.iter().all(|word| key.contains(word))
    };
    !votes.0.is_empty()
        && !votes.0.keys().any(is_client)
        && !sentence.to_lowercase().contains(&client.last.to_lowercase())
        || (!votes.0.is_empty()
            && !votes.0.keys().any(is_client)
            && votes.0.keys().any(|other| other.contains(&folded(&client.last))))
}
