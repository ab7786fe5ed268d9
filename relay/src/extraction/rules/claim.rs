//! Which figure of a mail is THE claim: the creditor's present total against the client.
//!
//! Every euro figure gets a weight from the words before and behind it in its own sentence or row: a total, a plain claim, or
//! something else (a part, an offer, an instalment, a former state, a credit). The heaviest weight decides, and only if it leaves
//! one value.

use super::{
    figures::{Currency, Figure, figures},
    flow::{self, Unit},
    pattern,
};
use regex::Regex;
use rust_decimal::Decimal;
use shared::money::Amount;
use std::{collections::BTreeSet, sync::LazyLock};

/// The claim that a mail states.
pub(super) struct Claim {
    pub(super) amount: Amount,
    /// How plainly it is stated.
    pub(super) confidence: f64,
    /// The words that state it, for the portal.
    pub(super) sentence: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// A part, an offer, an instalment, a former state: never the claim.
    Other,
    /// A figure that nothing speaks for or against.
    Bare,
    /// Words of a claim or of what is open.
    Claimed,
    /// Words of a total.
    Total,
}

const TOTAL: &str = r"gesamt(?:e[nrs]?)?(?:forderung|betrag|summe|saldo|schuld|rückstand|verbindlichkeit|restschuld)?(?:en)?\b|insgesamt|zusammen\b|summe\b|\btotal\b|endbetrag|endsumme|schlusssaldo|endsaldo|restforderung|restschuld|restbetrag|restsaldo|valutiert|valuta\b|outstanding balance|balance (?:due|outstanding|of)|amount (?:due|outstanding|owed)|total (?:claim|amount|outstanding|debt)";
const CLAIMED: &str = r"forderung(?:en)?\b|rückst[aä]nd\w*|ausstand|ausstehend\w*|aushaft\w*|offen\w*|unberichtigt|schulde[tn]?\b|saldo\b|zahlungsrückstand|mietrückstand|beläuft|beziffer\w*|betr[aä]g(?:t|en)\b|\bclaim\b|\bowes?\b|outstanding|\bbalance\b|zu zahlen|zahlbar|fällig ist|verbleib\w*|bleib(?:t|en)\b";
const OTHER: &str = r"hauptforderung|haupts(?:umme|ache)|zins(?:en|es)?\b|verzugszins\w*|säumnis\w*zuschl[aä]g|\bkosten\b|\w+kosten\b|\w*gebühr(?:en)?\b|spesen|auslagen|porto|mahn\w*\b|\bdavon\b|hiervon|wovon|entf[aä]ll(?:en|t)\b|anteil|principal|interest|fees?\b|rechnung\b|rate(?:n)?\b|ratenzahlung|\w+rate\b|monatlich\w*|im monat|pro monat|je monat|mtl|jährlich|täglich|tageszins|instal?ments?|monthly|einmalzahlung|einmalbetrag|vergleich\w*|abgeltung|erledigung|angebot\w*|vorschlag\w*|anbieten|bereit\b|verzicht\w*|erlass\w*|quote|mithin|settlement|offer\w*|kaution|erlös|guthaben|gutschrift|überzahl\w*|erstatt\w*|auszahl\w*|credit\b|refund|payment|\bpaid\b|zahlung(?:en)? (?:von|in höhe|über)|gezahlt|bezahlt|eingegangen|teilzahlung|getilgt|beglichen|stammkapital|grundkapital|share capital|haftungssumme|gegenstandswert|streitwert|value in dispute|darlehen(?:s)?(?:betrag)?\b|kredit(?:betrag|summe|limit|rahmen)|kaufpreis|statt\b|bisher\w*|früher\w*|ursprünglich\w*|zuletzt|damals|vormals|previous\w*|original\w*|formerly|limit\b|freibetrag|pfändbar\w*|einkommen|bis zu|ab nur|mindestens|streitig|bestritten|schätzungsweise|circa|etwa|ungefähr|geschätzt\w*|angegeben\w*|genannt\w*|nach (?:ihren|seinen|deren|ihrer|seiner) (?:unterlagen|angaben)|ihre[nrs]? (?:angabe|aufstellung)";

static TOTAL_WORDS: LazyLock<Regex> = LazyLock::new(|| pattern(&format!("(?i)(?:{TOTAL})")));
static CLAIM_WORDS: LazyLock<Regex> = LazyLock::new(|| pattern(&format!(r"(?i)(?:\b(?:{CLAIMED}))")));
static OTHER_WORDS: LazyLock<Regex> = LazyLock::new(|| pattern(&format!(r"(?i)\b(?:{OTHER})")));

/// Words behind a figure that speak for it.
static CLAIM_BEHIND: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^[^.;!?]{0,40}?(?:\boffen\b|zur zahlung offen|\bausstehend|\brückständig|\boutstanding|\bschuldig|\bberücksichtigt|\bzu zahlen\b|\bgeltend\b|\bangemeldet|\bfällig$|\bdue\b|\bowed\b)",
    )
});

/// Words behind a figure that speak against it, whatever stands before.
static OTHER_BEHIND: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^[^.;!?,]{0,30}?(?:\bmonatlich|\bim monat|\bpro |\bje |\bp\. ?m\.|\bguthaben|\bzur erledigung|\bzur abgeltung|\bangeboten|\berlassen|\bgezahlt|\bbezahlt|\banzubieten|\bverzicht)",
    )
});

/// The whole mail says that it states no claim against this client, or claims that cannot be put together.
static NO_CLAIM: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)nicht (?:bei uns )?als (?:kund|mitglied|schuldner|versicher)\w*|nicht (?:als \w+ )?geführt|(?:kein(?:en|e)?|nicht) (?:eindeutig\w* )?(?:treffer|zuordn\w*|zuzuordnen)|nicht zuordnen|uns (?:leider )?nicht bekannt|unbekannt\b.{0,40}(?:kund|person)|keine[nr]? (?:offene[nr]? )?(?:forderung|verbindlichkeit|ansprüche|anspruch)\w* (?:mehr )?(?:besteh|gegen|offen|haben|gelt)|nicht (?:zusammenfassen|zusammengefasst)|getrennt (?:abrechn|geführt|zu betrachten)|no (?:record|account|customer)|cannot (?:identify|find|locate)|one and the same|dieselbe person|personenverwechslung",
    )
});

pub(super) fn find(text: &str) -> Option<Claim> {
    let units = flow::units(text);
    let english = is_english(text);
    let mut weighed: Vec<(Weight, Option<i64>, Currency, String)> = Vec::new();
    for (unit, figures) in units.iter().zip(figures(&units, english)) {
        weighed.extend(weigh_unit(unit, &figures));
    }
    let best = weighed.iter().map(|(weight, ..)| *weight).max().filter(|weight| *weight > Weight::Other)?;
    // One bare figure is a claim only in a mail that says nothing else about money.
    if best == Weight::Bare && weighed.len() > 1 {
        return None;
    }
    let chosen: Vec<_> = weighed.iter().filter(|(weight, ..)| *weight == best).collect();
    let values: BTreeSet<Option<i64>> = chosen.iter().map(|(_, cents, ..)| *cents).collect();
    let (Some(Some(cents)), 1) = (values.first(), values.len()) else { return None };
    let foreign = chosen.iter().any(|(_, _, currency, _)| *currency == Currency::Foreign);
    let denied = *cents > 0 && NO_CLAIM.is_match(text);
    if foreign || denied || *cents < 0 {
        return None;
    }
    let amount = Amount::from_decimal(Decimal::new(*cents, 2)).ok()?;
    let confidence = match best {
        Weight::Total => 0.9,
        Weight::Claimed => 0.8,
        Weight::Bare | Weight::Other => 0.5,
    };
    let sentence = chosen.last().map(|(.., sentence)| sentence.clone()).unwrap_or_default();
    Some(Claim { amount, confidence, sentence })
}

fn weigh_unit(unit: &Unit, figures: &[Figure]) -> Vec<(Weight, Option<i64>, Currency, String)> {
    let sentences = flow::sentences(unit);
    let mut weighed = Vec::new();
    let mut end_of_last = 0;
    // A row of a ledger ends in its balance: only its last figure counts, and only under a label.
    let last = figures.len().saturating_sub(1);
    for (index, figure) in figures.iter().enumerate() {
        let Some(sentence) = sentences.iter().find(|range| range.contains(&figure.start)) else { continue };
        let before = unit.text.get(sentence.start.max(end_of_last)..figure.start).unwrap_or_default();
        let next = figures.get(index + 1).map_or(sentence.end, |next| next.start.min(sentence.end));
        let behind = unit.text.get(figure.end..next.max(figure.end)).unwrap_or_default();
        end_of_last = figure.end;
        let weight = if figure.negative || (unit.row && index < last) {
            Weight::Other
        } else {
            weigh(before, behind, unit.row)
        };
        let words = unit.text.get(sentence.clone()).unwrap_or_default().trim();
        weighed.push((weight, figure.cents, figure.currency, words.chars().take(300).collect()));
    }
    weighed
}

/// The last word before the figure decides: "unsere Forderung beträgt nach Zahlung von 50 EUR 100 EUR".
fn weigh(before: &str, behind: &str, row: bool) -> Weight {
    if OTHER_BEHIND.is_match(behind) {
        return Weight::Other;
    }
    let last = |words: &Regex| words.find_iter(before).last().map(|found| (found.end(), found.len()));
    let (total, claimed, other) = (last(&TOTAL_WORDS), last(&CLAIM_WORDS), last(&OTHER_WORDS));
    if other.is_some() && other >= total && other >= claimed {
        // "Kosten": of a row that is a part; "einschließlich Kosten 100 EUR": of a sentence it is not.
        let included = !row && INCLUDED.is_match(before);
        if !included || (total.is_none() && claimed.is_none()) {
            return Weight::Other;
        }
    }
    if total.is_some() {
        Weight::Total
    } else if claimed.is_some() || CLAIM_BEHIND.is_match(behind) {
        Weight::Claimed
    } else {
        Weight::Bare
    }
}

/// What only says that something is counted in, or already taken off, or where the claim comes from.
static INCLUDED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(?:einschließlich|inklusive|inkl\.?|nebst|zuzüglich|zzgl\.?|samt|including|plus|nach (?:abzug|verrechnung|verwertung|rückbuchung|storno|zahlung)|mit (?:zinsen|kosten)|aus (?:der|dem|den|unserer|unserem)|auf die|on invoice)[^.;]{0,120}$",
    )
});

fn is_english(text: &str) -> bool {
    static ENGLISH: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"(?i)\b(?:the|your|our|regards|dear|please|of|and)\b"));
    static GERMAN: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"(?i)\b(?:der|die|das|und|ihr|ihre|wir|mit|bitte|sie)\b"));
    ENGLISH.find_iter(text).take(50).count() > 2 * GERMAN.find_iter(text).take(50).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Option<String> {
        find(text).map(|claim| claim.amount.to_string())
    }

    #[test]
    fn totals_win_over_parts_and_present_over_former() {
        let table = "Hauptforderung    1.000,00 EUR\nZinsen    50,00 EUR\nGesamt    1.050,00 EUR\n";
        assert_eq!(amount(table), Some("1050.00".into()));
        assert_eq!(amount("Unsere Forderung beträgt derzeit 733,10 EUR."), Some("733.10".into()));
        assert_eq!(
            amount("Die Forderung beträgt nur noch 90,00 EUR statt bisher 120,00 EUR."),
            Some("90.00".into())
        );
        assert_eq!(amount("Es sind noch 412,55 EUR offen."), Some("412.55".into()));
        assert_eq!(
            amount("The outstanding balance is EUR 1,210.40, of which EUR 10.40 is interest."),
            Some("1210.40".into())
        );
        assert_eq!(amount("Offener Saldo inkl. Mahngebühren: 88,20 €"), Some("88.20".into()));
    }

    #[test]
    fn what_is_no_claim_is_no_amount() {
        for text in [
            "Wir bieten Ratenzahlung von monatlich 50,00 EUR an.",
            "Gegen eine Einmalzahlung von 500,00 EUR verzichten wir auf den Rest.",
            "Es besteht ein Guthaben von 45,20 EUR.",
            "Stammkapital: 25.000,00 EUR",
            "Vertrag A: Saldo 100,00 EUR\nVertrag B: Saldo 200,00 EUR",
            "Unsere Forderung beträgt CHF 1'200.00.",
            "Er schuldet uns fünfhundert Euro.",
            "Bitte nennen Sie das Geburtsdatum. Tel. 030 123456",
            "Frau Beispiel ist bei uns nicht bekannt. Eine andere Kundin hat offen 77,00 EUR.",
        ] {
            assert_eq!(amount(text), None, "{text}");
        }
    }
}
