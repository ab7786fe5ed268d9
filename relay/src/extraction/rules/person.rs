//! A person's name as it is written: with or without a comma, with titles and particles, in capitals.
//!
//! Owns the shapes of personal names in German and English mails, and the words that look like one. Whose name it is, `names` tells.

use super::pattern;
use regex::Regex;
use std::sync::LazyLock;

/// A personal name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) last: String,
    pub(super) first: String,
    /// Written with a comma, so that the order is known.
    pub(super) ordered: bool,
}

impl Name {
    /// `Nachname, Vorname`.
    pub(super) fn display(&self) -> String {
        format!("{}, {}", self.last, self.first)
    }

    /// The same for both orders and any case.
    pub(super) fn key(&self) -> Vec<String> {
        let mut words: Vec<String> =
            format!("{} {}", self.first, self.last).split_whitespace().map(folded).collect();
        words.sort_unstable();
        words
    }
}

/// One spelling for what people write in two: case, ß, umlauts.
pub(in crate::extraction) fn folded(word: &str) -> String {
    word.to_lowercase().replace('ß', "ss").replace('ä', "ae").replace('ö', "oe").replace('ü', "ue")
}

pub(super) const WORD: &str = r"\p{Lu}[\p{L}'’]+(?:-\p{L}[\p{L}'’]+)*";
pub(super) const PARTICLE: &str = r"(?i:von und zu|von der|von dem|von|van der|van den|van de|van|vom|zum|zur|zu|de la|de|del|della|dalla|dal|der|den|di|da|dos|du|el|al|ten|ter|freiherr|freifrau|graf|gräfin)";
const TITLE: &str = r"(?:(?i:(?:dipl\.-\p{L}+|dr|prof|mag|ing|med|jur|dipl|phil|rer|nat|oec|vet|dent|habil|h\.\s?c)\.(?:\s?-\s?|\s*)|professor\s+|doktor\s+)|(?:DI|DDr|MMag|Dkfm|BSc|MSc|BA|MA|LLM|MBA)\b\.?\s*(?:\((?:FH|Univ)\.?\)\s*)?)";

static COMMA: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"^(?P<last>(?:{PARTICLE} )*{WORD}(?: {WORD})?), ?{TITLE}*(?P<first>{WORD}(?: {WORD})?)"
    ))
});
static SPACED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"^(?P<first>{WORD}(?: {WORD})*?) (?P<last>(?:{PARTICLE} )*{WORD})(?: (?P<more>{WORD}))?"
    ))
});
static TITLES: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"^(?:\s|:|-\s|–\s|,\s)*(?i:(?:herrn|herr|frau|freifrau|freiherrn?|gräfin|graf|baronin|baron|frl\.|mr\.?|mrs\.?|ms\.?|miss|den|die|der|dem|name:?)\s+)*{TITLE}*"
    ))
});
/// Capitalised words of such mails that are no names.
static NO_NAME: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^(?:ihre?[mnrs]?|unsere?[mnrs]?|my|our|your|the|re|aw|wg|fwd?|az|gz|herrn?|frau|firma|sehr|guten|mit|wir|sie|ich|die|der|das|den|dem|des|ein|eine[rnms]?|zu[mr]?|in|am|im|vom|aus|bei|und|oder|bitte|vielen|dank|damen|herren|geb|geboren\p{L}*|wohnhaft|derzeit|eheleute|familie|mandant\p{L}*|schuldner\p{L}*|kund\p{L}*|gläubiger\p{L}*|gmbh|ag|kg|ohg|eg|ug|se|mbh|gbr|ltd|inc|ev|co|konto|nummer|nr|zeichen|datum|seite|stand|stellungnahme|mail|e-mail|tag|hallo|außergerichtlich\p{L}*|gerichtlich\p{L}*|auszug|inkasso|rechtsanw\p{L}*|kanzlei|stadt|landkreis|gemeinde|amt|debitor\p{L}*|insolvenz\p{L}*|offene[rnms]?|posten|miete|mieter\p{L}*|plan|nullplan|angebot|vorschlag|januar|februar|märz|april|mai|juni|juli|august|september|oktober|november|dezember|brief|hochzeit|hotel|\p{L}*eigentümer\p{L}*|bauherr\p{L}*|\p{L}*halter\p{L}*|patient\p{L}*|bis|seit|weihnachten|ostern|pfingsten|frühjahr|sommer|herbst|winter|montag|dienstag|mittwoch|donnerstag|freitag|samstag|sonntag|id|customer|balance|dear|regarding|claim|client|letter|invoice|automatische?|letzte|erste|zweite|neue[rns]?|wichtige?|eilt|ergänzend\p{L}*|weitere\p{L}*|sachen|sache|betr\p{L}*|wegen|gegen|schufa|eur|euro)$|(?:ung|ungen|heit|keit|schaft|versuch|anliegen|eingang|system|programm|abteilung|nummer|zeichen|konto|rechnung|vertrag|posten|anfrage|schreiben|nachricht|auskunft|bereinigungsplan|vergleich|vorschlag|anschlag|rückfrage|kasse|betrag|saldo|darlehen|kredit|verfahren|mitteilung|antwort|aufstellung|auszug|verzug|schulden|sache|versicherung|antrag|abschluss|bescheid|mahnung|vollmacht|vorgang|rate|raten|adresse|anschrift|straße|strasse|gasse|weg|platz|allee|stand|stände|übersicht|sachstand)$",
    )
});
static FIRM: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^[^.;:\n]{0,40}\b(?:GmbH|GMBH|mbH|AG|KG|OHG|oHG|eG|e\.\s?V|UG|SE|GbR|Ltd|Inc|AöR|Bank|Sparkasse|Versicherung|Inkasso)\b",
    )
});

/// The name that a text starts with, honorifics and titles left out.
pub(super) fn name_at(text: &str) -> Option<Name> {
    let start = TITLES.find(text).map_or(0, |titles| titles.end());
    let text = text.get(start..)?;
    let no_name = |words: &str| {
        let words = PARTICLES_FIRST.replace(words, "");
        words.split(' ').any(|word| word.starts_with(char::is_uppercase) && NO_NAME.is_match(word))
    };
    if let Some(found) = COMMA.captures(text) {
        let (last, first) = (found.name("last")?.as_str(), found.name("first")?.as_str());
        let given: Vec<&str> = first.split(' ').take_while(|word| !NO_NAME.is_match(word)).collect();
        // Two words before the comma are a whole name unless the second part is one too.
        let single = last.split(' ').filter(|word| word.starts_with(char::is_uppercase)).count() == 1
            || is_particle_name(last);
        if single && !no_name(last) && !given.is_empty() {
            return Some(Name { last: usual_case(last), first: usual_case(&given.join(" ")), ordered: true });
        }
    }
    let found = SPACED.captures(text)?;
    let (mut first, mut last) =
        (found.name("first")?.as_str().to_owned(), found.name("last")?.as_str().to_owned());
    if no_name(&first) || no_name(&last) {
        return None;
    }
    if let Some(more) = found.name("more").map(|more| more.as_str()).filter(|more| !NO_NAME.is_match(more)) {
        first = format!("{first} {last}");
        more.clone_into(&mut last);
    }
    if FIRM.is_match(text.get(..text.floor_char_boundary(first.len() + last.len() + 14)).unwrap_or(text)) {
        return None;
    }
    Some(Name { last: usual_case(&last), first: usual_case(&first), ordered: false })
}

/// The first name that starts at some word of a text from `at` on, and where.
pub(super) fn next_name(text: &str, at: usize) -> Option<(usize, Name)> {
    let rest = text.get(text.ceil_char_boundary(at)..)?;
    let offset = text.len() - rest.len();
    ANY_WORD
        .find_iter(rest)
        .find_map(|word| Some((offset + word.start(), name_at(rest.get(word.start()..)?)?)))
}

/// "ZUR MÜHLEN": in capitals a particle looks like any other word.
static PARTICLES_FIRST: LazyLock<Regex> = LazyLock::new(|| pattern(&format!(r"^(?:{PARTICLE} )+")));
pub(super) static PARTICLES: LazyLock<Regex> = LazyLock::new(|| pattern(&format!(r"^{PARTICLE} ")));

fn is_particle_name(last: &str) -> bool {
    PARTICLES.is_match(last)
        && last.split(' ').filter(|word| !PARTICLES.is_match(&format!("{word} "))).count() == 1
}

/// Capitals brought to normal spelling; everything else stays as written.
pub(super) fn usual_case(words: &str) -> String {
    if words.chars().any(char::is_lowercase) || words.chars().filter(|c| c.is_alphabetic()).count() < 3 {
        return words.to_owned();
    }
    let mut usual = String::with_capacity(words.len());
    for word in words.split_inclusive([' ', '-']) {
        let particle = PARTICLES.is_match(word);
        for (at, c) in word.chars().enumerate() {
            if at == 0 && !particle {
                usual.push(c);
            } else {
                usual.extend(c.to_lowercase());
            }
        }
    }
    usual
}

pub(super) static ANY_WORD: LazyLock<Regex> = LazyLock::new(|| pattern(WORD));
