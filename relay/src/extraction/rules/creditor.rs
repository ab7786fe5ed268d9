//! Who holds the claim: the principal that a mail names, else the firm that signs it.
//!
//! Owns the shapes of firms' names and the phrases of representation and sale. It never makes a name up from a domain, and it
//! compares with no list of creditors; that is the matching's.

use super::pattern;
use super::person::{folded, usual_case};
use regex::Regex;
use std::sync::LazyLock;

const LEGAL: &str = r"(?:(?i:gmbh)(?:\s?&\s?Co\.?\s?(?:KG|OHG|KGaA))?|(?i:gesmbh|ges\.\s?m\.\s?b\.\s?h\.|mbh)|AG(?:\s?&\s?Co\.?\s?(?:KG|OHG))?|KGaA|KG|OHG|oHG|e\.?\s?G\.?|EG|e\.\s?V\.|UG(?: \(haftungsbeschränkt\))?|SE(?:\s?&\s?Co\.?\s?KG)?|GbR|PartG(?:\s?mbB)?|AöR|A\.ö\.R\.|KdöR|VVaG|e\.\s?K\.|Ltd\.?|Limited|Inc\.?|LLC|plc|S\.A\.|S\.\s?à\s?r\.\s?l\.|S\.p\.A\.|s\.r\.o\.|ApS|SARL|SAS|B\.V\.|N\.V\.)";
const PART: &str = r"(?:[\p{Lu}0-9][\p{L}0-9.'’-]*|&|\+|und|für|der|des|am)";

static FIRM: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(r"[\p{{Lu}}0-9][\p{{L}}0-9.'’-]*(?:\s{PART}){{0,6}}?\s{LEGAL}(?:$|[^\p{{L}}])"))
});
static LABELLED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?im)^[\s*-]*(?:aktuelle[rn]?\s+|neue[rn]?\s+)?(?:gl(?:ä|ae)ubiger(?:in)?|auftraggeber(?:in)?|forderungsinhaber(?:in)?|unsere?\s+(?:mandant(?:in)?|auftraggeber(?:in)?)|creditor)\s*:\s*(?P<name>\S.{1,80}?)\s*$",
    )
});
static FOR_PRINCIPAL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?:\b(?i:namens|im namen|im auftrag|in vollmacht|auftrags|für unsere[rn]?|vertreten(?: wir)?|vertretung|beauftragt von|(?:führen|fuehren) die (?:bücher|buchhaltung)|buchhaltung|on behalf of|acting for|inkassoauftrag)\b|\b(?i:unser)\p{{L}}{{0,3}} (?i:mandant(?:in|en|schaft)|auftraggeber(?:in|s)?))(?:[\s,]+(?:und|in|Vollmacht|der|die|des|dem|den|von|wir|unser\p{{L}}*|Mandantin|Mandanten|Auftraggeberin|Gläubigerin|Firma|Fa\.|the|our|client|rechtlichen|Interessen|anwaltlich|weiterhin))*[\s,]+(?P<name>[\p{{Lu}}0-9][\p{{L}}0-9.'’-]*(?:\s{PART}){{0,6}}?\s{LEGAL})(?:$|[^\p{{L}}])"
    ))
});
static FOR_OWNERS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?i:für|namens|im auftrag|verwalter\p{L}*)\b[^.;]{0,40}?\b(?i:der|die)\s+(?P<name>(?:WEG|\p{L}*[Ee]igentümergemeinschaft)\s+\p{Lu}[\p{L}.'’-]*(?:\s[\p{Lu}0-9][\p{L}0-9./-]*){0,3}[\p{L}0-9])",
    )
});
static REPRESENTS_A_PERSON: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?i:vertreten wir|vertrete ich|zeigen wir die vertretung von|unsere[rn]? mandant(?:in|en)?)\b[^.;]{0,40}?\b(?:Frau|Herrn?)\s+(?:(?:Dr|Prof)\.\s*)*(?P<name>\p{Lu}[\p{L}'’-]+(?:\s(?:(?:von|van|de|zu|zur|der)\s)*\p{Lu}[\p{L}'’-]+){1,2})",
    )
});
/// A property manager writes for the landlady.
static FOR_A_PERSON: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?i:namens|im namen|im auftrag|in vollmacht|für)\b[^.;]{0,30}\b(?i:vermieter|eigentümer|auftraggeber|gläubiger)(?:in|s)?,?\s+(?:(?:Frau|Herrn?)\s+)(?:(?:Dr|Prof)\.\s*)*(?P<name>\p{Lu}[\p{L}'’-]+(?:\s(?:(?:von|van|de|zu|zur|der)\s)*\p{Lu}[\p{L}'’-]+){1,2})",
    )
});
static CLAIM_OF: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"\b(?i:(?:gesamt)?forderung|anspruch|ansprüche) (?:der|des)(?: Firma| Fa\.)? (?P<name>[\p{{Lu}}0-9][\p{{L}}0-9.'’-]*(?:\s{PART}){{0,6}}?\s{LEGAL})(?:$|[^\p{{L}}])"
    ))
});
static SOLD_TO: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"\b(?i:an)(?: die| den)?(?: Firma)? (?P<name>[\p{{Lu}}0-9][\p{{L}}0-9.'’-]*(?:\s{PART}){{0,6}}?\s{LEGAL})[^.]{{0,60}}\b(?:verkauft|abgetreten|veräußert|übertragen|zediert)"
    ))
});
static VERSUS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?m)(?:^|[:\s])(?P<name>[\p{{Lu}}0-9][\p{{L}}0-9.'’-]*(?:[ \t]{PART}){{0,6}}?[ \t]{LEGAL})[ \t]*(?:\./\.|/\.|gegen|vs?\.)"
    ))
});
static CLOSING: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?im)^\s*(?:mit\s+\p{L}+(?:\s+\p{L}+)?\s+gr(?:ü|ue)(?:ß|ss)\p{L}*|\p{L}*\s*gr(?:ü|ue)(?:ß|ss)e?\p{L}*\b.{0,30}|gruß|mfg|hochachtungsvoll|im auftrag|(?:kind|best|warm)?\s*regards|(?:yours )?sincerely|ihr\p{L}*\s+\p{L}*\s*team\b.*|--)\W*$",
    )
});
static LEADING: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^(?:(?:Im )?Auftrag (?:der|des|von)|Ihr\p{L}*|Team|Die|Der|Das|Firma|Fa\.|von)\s+")
});
static DEPARTMENT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\s+[-–|/]\s+.*$|,\s.*$"));
static PERSON: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\p{Lu}[\p{L}'’-]+,\s\p{Lu}[\p{L}'’. -]+$"));

/// "Max M." in the sender's name is spelled out in the signature.
fn in_full(sender: &str, current: &str) -> Option<String> {
    let (first, last) = sender.strip_suffix('.')?.rsplit_once(' ')?;
    let is_initial = last.chars().count() == 1 && last.chars().all(char::is_uppercase);
    let line = current.lines().rev().map(str::trim).find(|line| {
        line.strip_prefix(first)
            .is_some_and(|rest| rest.trim_start().starts_with(last) && !rest.ends_with('.'))
    })?;
    Some(line.to_owned()).filter(|line| is_initial && line.split(' ').count() <= 4)
}

/// The creditor's name.
pub(super) fn name(subject: &str, current: &str, from_name: Option<&str>) -> Option<String> {
    principal(subject, current)
        .or_else(|| in_full(from_name?.trim(), current))
        .or_else(|| signed(current, from_name))
        .map(|name| spelled(&name))
}

fn principal(subject: &str, current: &str) -> Option<String> {
    let named = |label: &Regex, text: &str| Some(label.captures(text)?.name("name")?.as_str().to_owned());
    named(&SOLD_TO, current)
        .or_else(|| named(&LABELLED, current).map(|name| up_to_its_form(&name)))
        .or_else(|| named(&VERSUS, subject))
        .or_else(|| named(&VERSUS, current))
        .or_else(|| named(&FOR_PRINCIPAL, current))
        .or_else(|| named(&CLAIM_OF, current))
        .or_else(|| named(&FOR_A_PERSON, current))
        .or_else(|| named(&REPRESENTS_A_PERSON, current))
        .or_else(|| named(&FOR_OWNERS, current))
}

/// "Beispiel GmbH, Luxemburg" without what follows the legal form.
fn up_to_its_form(name: &str) -> String {
    let firm = FIRM.find(name).filter(|firm| firm.start() == 0);
    firm.map_or(name, |firm| firm.as_str()).trim_end_matches([' ', ',', '(']).to_owned()
}

/// The firm below the closing words, else the sender's display name without its department.
fn signed(current: &str, from_name: Option<&str>) -> Option<String> {
    let signature = CLOSING
        .find_iter(current)
        .last()
        .map_or("", |closing| current.get(closing.end()..).unwrap_or_default());
    let firms = |text: &str| -> Vec<String> {
        text.lines().flat_map(|line| FIRM.find_iter(line).map(|firm| firm.as_str().to_owned())).collect()
    };
    let sender = from_name.map(str::trim).filter(|name| !name.is_empty());
    let akin = |firm: &&String| sender.is_some_and(|sender| shares_a_word(firm, sender));
    let (below, anywhere) = (firms(signature), firms(current));
    let sending_firm = sender.and_then(|sender| firms(sender).into_iter().next());
    below
        .iter()
        .find(akin)
        .or_else(|| anywhere.iter().rev().find(akin))
        .cloned()
        .or(sending_firm)
        .or_else(|| {
            let is_nobody = sender.is_none_or(|sender| PERSON.is_match(sender));
            below.first().cloned().or_else(|| line_of_a_firm(current)).filter(|_| is_nobody)
        })
        .or_else(|| below.first().filter(|_| sender.is_none()).cloned())
        .or_else(|| sender.filter(|sender| A_PERSON.is_match(sender)).and_then(|_| line_of_a_firm(current)))
        .or_else(|| {
            sender.map(|sender| {
                if PERSON.is_match(sender) {
                    sender.to_owned()
                } else {
                    DEPARTMENT.replace(sender, "").into_owned()
                }
            })
        })
        .or_else(|| anywhere.last().cloned())
}

/// A person's display name, as far as its form tells.
static A_PERSON: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^\p{Lu}[\p{L}'’-]+,?(?:\s\p{Lu}[\p{L}'’-]+){1,2}$"));
/// Lines at the end of a mail in which a signature stands.
const SIGNATURE_LINES: usize = 8;

/// A firm that has one of the last lines to itself.
fn line_of_a_firm(current: &str) -> Option<String> {
    let lines = current.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    lines
        .take(SIGNATURE_LINES)
        .find(|line| FIRM.find(line).is_some_and(|firm| firm.len() == line.len()))
        .map(str::to_owned)
}

fn shares_a_word(firm: &str, sender: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric())
            .filter(|word| word.chars().count() > 3)
            .map(folded)
            .collect()
    };
    let sender = words(sender);
    words(firm).iter().any(|word| sender.contains(word))
}

static LEGAL_IN_CAPITALS: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\bgmbh\b"));
static SHORT_LEGAL: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b(?:Ag|Kg|Ohg|Ug|Se|Co)\b"));

/// Without leading small words and with capitals brought to normal spelling.
fn spelled(name: &str) -> String {
    let mut name = name.trim().trim_end_matches([',', ';', ':', ')', '|']).trim().to_owned();
    for _ in 0..3 {
        name = LEADING.replace(&name, "").into_owned();
    }
    if name.chars().any(char::is_lowercase) {
        return name;
    }
    let usual = LEGAL_IN_CAPITALS.replace_all(&usual_case(&name), "GmbH").into_owned();
    SHORT_LEGAL
        .replace_all(&usual, |found: &regex::Captures<'_>| {
            found.get(0).map_or("", |word| word.as_str()).to_uppercase()
        })
        .into_owned()
}
