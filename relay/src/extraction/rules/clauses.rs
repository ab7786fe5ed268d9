//! What the clause around a figure makes of it, whatever the figure is called there.
//!
//! Owns the phrases of offers, conditions, ranges, denials and payments. It never says that a figure is the claim.

use super::{labels::Kind, pattern};
use regex::Regex;
use std::sync::LazyLock;

/// The number of the other side, unless it is confirmed.
static THEIRS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\bvon ihnen\b.{0,30}(?:genannt|angegeben|angesetzt|aufgeführt|mitgeteilt|behauptet|beziffert|angemeldet)|\b(?:laut|nach|gemäß|gemäss|entgegen|in) ihr\p{L}* (?:angabe|unterlagen|aufstellung|schreiben|plan|anschreiben|liste)|\bsie (?:hatten|haben|nennen|geben|nannten|gehen|gingen|führen|setzen)\b|\bmandant\p{L}* (?:meint|behauptet|gibt|glaubt|geht|nennt|beziffert)|\byou (?:state|mention|claim)|\byour (?:letter|list|records)|\b(?:im|in ihrem) (?:plan|entwurf|vorschlag)\b|\bsie schrieben\b",
    )
});
static CONFIRMED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:bestätig\p{L}*|zutreffend\p{L}*|richtig\p{L}*|korrekt\p{L}*|stimmt|confirm\p{L}*|correct\p{L}*)\b",
    )
});
static DENIED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:nicht|kein\p{L}*|not)\s+(?:\p{L}+\s+)?(?:zutreffend|richtig|korrekt|bestätig|correct|confirm)|\b(?:unzutreffend|unrichtig|falsch|incorrect)",
    )
});
static LIMIT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:unter|bis zu|mindestens|wenigstens|höchstens|maximal|max\.|zwischen|je|pro|jeweils|ab|gegen(?:\s+\p{L}+){0,2}|above|below|up to|at least|less than|more than|mehr als|weniger als)\s*$",
    )
});
/// "zwischen 1.500 und 1.850 EUR", "1.500,00 bis 1.850,00 EUR": a range states no figure.
static RANGE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\bzwischen\b(?:[^.;]|\.[0-9])*\b(?:und|and)\s*$|\b(?:between|from)\b(?:[^.;]|\.[0-9])*\b(?:and|to)\s*$|(?:[0-9]\.[0-9]{3}|,[0-9]{2}|,-{1,2}|[0-9]{3})\s*(?:eur|euro|€)?\s*(?:bis|–|-|to)\s*$|^\s*(?:bis|to|–)\s*$",
    )
});
static RANGE_BEHIND: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^\s*(?:bis|to|–)(?: zu)?\s*(?:eur|€)?\s*$"));
static DIFFERENCE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b(?:um|by)\s*(?:weitere\s*)?$"));
static IS_ABOUT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b(?:handelt|geht)\b[^,;]*\bum\s*$"));
/// The same said behind the figure, before its clause ends: "500 EUR würden wir akzeptieren", "auf 500 EUR zu reduzieren".
static OFFERED_BEHIND: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:[^,.;]|[.,][0-9]){0,80}?\b(?:würden?|wären?|könnten?|akzeptabel|annehmbar|would|could)\b|^\s*zu\s+(?:reduzieren|ermäßigen|ermaessigen|begrenzen|senken|beschränken|verringern|kürzen|bezahlen bereit|zahlen bereit)\b|^(?:[^,.;]|[.,][0-9]){0,40}\b(?:wenden|melden) sie sich\b",
    )
});
static CLAUSE_ENDS: LazyLock<Regex> = LazyLock::new(|| pattern(r"\s(?:und|aber|jedoch|and|but)\s"));
/// A threshold, not a claim: "bei Forderungen über 5.000 EUR".
static THRESHOLD: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:forderungen|beträge[n]?|summen|rechnungen|schulden|claims|amounts)\s+(?:über|ab|unter|von mehr als|bis|above|over|below)\s*(?:einem betrag von\s*)?$",
    )
});
/// A payment towards the claim: its label is the nearer word, and not what the figure is.
static PAID_TOWARDS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:zahlte[nt]?|überwies(?:en)?|ueberwies(?:en)?|leistete[nt]?|entrichtete[nt]?|beglich(?:en)?|erbrachte[n]?|tilgte[n]?|kam(?:en)? zurück|zurück kam(?:en)?|erhielt(?:en)? (?:ich|wir)|bekam(?:en)? (?:ich|wir)|paid)\b[^.;]*$",
    )
});
/// What would be owed under a condition is not what is owed.
static HYPOTHETICAL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:sollten?|falls|sofern|wenn|würden?|wären?|könnten?|bei (?:annahme|abschluss|eingang|zahlung|nichtzahlung|verzug|fristgerechter|einhaltung)|if|would)\b",
    )
});
static NEGATED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"\b(?:nicht|nicht mehr|keine|not|statt|anstatt)\s*(?:auf|von|in höhe von|bei|mit|at|to)?\s*$")
});
/// "nicht ... 900 EUR, sondern": what is denied, however far the word stands before the figure.
static CONTRADICTED: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b(?:nicht|kein\p{L}*|not)\b[^.;]*$"));
static INSTEAD: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[^.;]{0,60}\b(?:sondern|but)\b"));
/// A figure that its own writer takes back.
static MISTAKEN: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:irrtümlich\p{L}*|irrtuemlich\p{L}*|versehentlich\p{L}*|fälschlich\p{L}*|falsch\p{L}*|unrichtig\p{L}*|fehlerhaft\p{L}*|anders als|anders wie|entgegen|wie (?:zunächst|ursprünglich|bisher|gestern|zuvor|vorher|zuletzt)|erroneous\p{L}*|mistaken\p{L}*|by mistake|wrong\p{L}*)\b[^,;:]*$",
    )
});
static TAKEN_BACK: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^\s*(?:unrichtig|falsch|irrtümlich|fehlerhaft|zu niedrig|zu hoch)\s+(?:angeführt|angesetzt|angegeben|aufgeführt|berücksichtigt|beziffert)|^[^.;]{0,60}\b(?:war|ist|sind|waren|was|is|were)\s+(?:\p{L}+ ){0,3}(?:falsch|irrtümlich|unrichtig|unzutreffend|fehlerhaft|nicht (?:mehr )?(?:korrekt|richtig|zutreffend|aktuell)|überholt|hinfällig|gegenstandslos|wrong|incorrect|outdated)\b",
    )
});
static SET_RIGHT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:sondern|richtig\p{L}*|korrekt\p{L}*|korrigiert\p{L}*|tatsächlich|vielmehr|correct\p{L}*|but)\b",
    )
});
/// "von den 2.500 EUR ... noch 1.850 EUR": the first was, the second is.
static OUT_OF: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\bvon\s+(?:den|diesen|diesem|dem|der|ursprünglich\p{L}*|urspruenglich\p{L}*|insgesamt|anfänglich\p{L}*|meinen|unseren|seinen|ihren|einst|damals|geliehenen)(?:\s+(?:geliehenen|vereinbarten|insgesamt|ursprünglich\p{L}*|damals))?\s*$",
    )
});
static STILL_BEHIND: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b(?:noch|still)\b"));
static ABOUT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?:\b(?:rund|etwa|ungefähr|circa|about|around|knapp|gut|approximately|schätzungsweise)|\bca\.?|\bapprox\.?|~)\s*$",
    )
});
static BEHIND_OTHER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^\s*(?:/|pro|je|im|p\.|per|a|each|jeden|jede)?\s*(?:monat\p{L}*|monatlich\p{L}*|mtl|woche\p{L}*|tag|täglich|quartal|jahr|month\p{L}*|week\p{L}*|day)\b|^[^,;.]{0,60}\b(?:guthaben|zur (?:vollständigen )?(?:abgeltung|erledigung)|zu (?:ihren|seinen|ihrem|deren) gunsten|zu ?gunsten (?:ihre\p{L}*|des|der|von|unseres kunden)|im haben|erlassen|verzicht\p{L}*|storniert|ausgebucht|abgezogen|anbieten|akzeptieren würden|zufrieden|geliehen|geborgt|geschenkt|begnügen|in full settlement)\b|^\s*\(?haben\)?\s*[.,;]?\s*$|^\s*\+?\s?(?:pro|je)\b",
    )
});
static BEHIND_PAID: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?P<gap>(?:[^,;.]|\.[0-9]){0,60}?)\b(?:gezahlt|bezahlt|überwiesen|beglichen|ausgeglichen|eingegangen|gutgeschrieben|paid|received|getilgt|verrechnet|zurück)\b",
    )
});
static NOT_YET: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\b(?:nicht|keine?|noch|bis heute|un|not|yet|wurde nie|nie)\b"));
static OFFERS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:(?:ist|bin|sind) (?:\p{L}+ ){0,4}bereit|wären (?:\p{L}+ ){0,3}zufrieden|wären (?:\p{L}+ ){0,4}bereit|bieten (?:\p{L}+ ){0,3}(?:an|ihnen)|schlagen (?:\p{L}+ ){0,6}vor|können uns (?:\p{L}+ ){0,3}vorstellen|erwarten (?:\p{L}+ ){0,2}mindestens|willing to|prepared to)\b",
    )
});

/// What a figure is whatever it is called: an offer, a threshold, the other side's number, taken back, paid. None = its label says.
/// `own` and `behind` are the words around it in lower case, `sentence` what stands before it.
pub(super) fn kind(own: &str, behind: &str, sentence: &str) -> Option<Kind> {
    let clause = CLAUSE_ENDS.find(behind).and_then(|end| behind.get(..end.start())).unwrap_or(behind);
    if HYPOTHETICAL.is_match(&sentence.to_lowercase()) || OFFERED_BEHIND.is_match(clause) {
        return Some(Kind::Other);
    }
    if offers(sentence) || THRESHOLD.is_match(own) {
        return Some(Kind::Other);
    }
    if RANGE.is_match(own) || RANGE_BEHIND.is_match(behind) {
        return Some(Kind::Other);
    }
    let limited = LIMIT.is_match(own) || (DIFFERENCE.is_match(own) && !IS_ABOUT.is_match(own));
    if limited || NEGATED.is_match(own) || ABOUT.is_match(own) || BEHIND_OTHER.is_match(behind) {
        return Some(Kind::Other);
    }
    if is_taken_back(own, behind) || (OUT_OF.is_match(own) && STILL_BEHIND.is_match(behind)) {
        return Some(Kind::Other);
    }
    if THEIRS.is_match(own)
        && (!CONFIRMED.is_match(own) && !CONFIRMED.is_match(behind)
            || DENIED.is_match(own)
            || DENIED.is_match(behind))
    {
        return Some(Kind::Other);
    }
    if BEHIND_PAID
        .captures(behind)
        .is_some_and(|found| found.name("gap").is_some_and(|gap| !NOT_YET.is_match(gap.as_str())))
    {
        return Some(Kind::Payment);
    }
    if PAID_TOWARDS.is_match(own) {
        return Some(Kind::Payment);
    }
    None
}

/// Whether the sentence offers something before the figure: what follows is what it would take, and not what is owed.
fn offers(before: &str) -> bool {
    OFFERS.is_match(&before.to_lowercase())
}

/// Whether a passage offers something.
pub(super) fn is_offer(text: &str) -> bool {
    let text = text.to_lowercase();
    OFFERS.is_match(&text) || HYPOTHETICAL.is_match(&text)
}

/// Whether the writer says that a figure is wrong.
fn is_taken_back(own: &str, behind: &str) -> bool {
    let mistaken = MISTAKEN
        .find(own)
        .is_some_and(|found| !SET_RIGHT.is_match(own.get(found.start()..).unwrap_or_default()));
    let contradicted = INSTEAD.is_match(behind)
        && CONTRADICTED
            .find(own)
            .is_some_and(|found| !SET_RIGHT.is_match(own.get(found.end()..).unwrap_or_default()));
    mistaken || contradicted || TAKEN_BACK.is_match(behind)
}
