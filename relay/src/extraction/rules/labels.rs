//! What a figure of money is: the total, what remains, the claim, a part, or nothing of the kind.
//!
//! Owns the vocabulary of claims and the reading of a figure's own clause: the label nearest before it, a verb that points back
//! to an earlier label, a word right behind it. It judges one figure at a time; `amounts` chooses among them.

use super::{clauses, figures::Figure, pattern};
use regex::Regex;
use std::sync::LazyLock;

/// What a figure stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A sum over all parts.
    Total,
    /// What is still open.
    Rest,
    /// A claim, not said to be all of it.
    Claim,
    /// Principal, interest, costs: a part of a claim.
    Part,
    /// Money that came in or is credited.
    Payment,
    /// A former claim, an offer, an instalment, a value, somebody else's number: never the claim.
    Other,
    /// Nothing beside the figure says what it is.
    Unlabelled,
}

/// A figure with its meaning.
#[derive(Debug, Clone)]
pub(super) struct Mention {
    pub(super) unit: usize,
    /// Bytes of the unit's text.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) cents: i64,
    pub(super) kind: Kind,
    /// Approximate, or with something to be added to it.
    pub(super) doubt: bool,
}

/// The vocabulary, nearest to the figure wins. The first group that fits at a place is taken, so the special come first.
static LABEL: LazyLock<Regex> = LazyLock::new(|| {
    let other = [
        r"[0-9][0-9.,]*\s*(?:%|prozent|v\.\s?h\.)(?:\s+[\p{L}.]+){0,3}?\s*\p{L}*forderung\p{L}*",
        r"gegenstandswert\p{L}*|streitwert\p{L}*|einlage",
        r"(?:darlehen|kredit|ratenkredit|finanzierung|\p{L}*kredit|\p{L}*darlehen)s?\s+(?:über|in höhe von|i\.\s?h\.\s?v\.)",
        r"(?:darlehens|kredit|nettodarlehens|finanzierungs|versicherungs|bürgschafts|vergleichs|rückkaufs|pfändungs|freibetrags)(?:summe|betrag|wert|rahmen|limit|grenze)|kaufpreis|listenpreis|verfügungsrahmen|pfändungsfrei\p{L}*|freibetrag|einkommen|streitwert|restwert|zeitwert|schätzwert|verkehrswert|auftragswert",
        r"(?:monats|schluss|schluß|teil|abschluss|abschluß|einzel|anfangs|start)?raten?(?:n)?|ratenzahlung\p{L}*|monatlich\p{L}*\s+(?:zahlung|leistung|tilgung)\p{L}*|monatlich\p{L}*|mtl|instal?lments?|abschl[aä]g\p{L}*|monthly|monatsbetrag",
        r"einmal(?:ige[nrms]?)?\s?(?:zahlung|betrag)\p{L}*|einmalbetrag|(?:sofort|teil|abfindungs|vergleichs)zahlung|\p{L}*vergleich\p{L}*|\p{L}*abfindung\p{L}*|\p{L}*angebot\p{L}*|\p{L}*vorschl[aä]g\p{L}*|abgeltung|erledigung|quote\p{L}*|settlement|offers?|offered|\p{L}*verzicht\p{L}*|erlass\p{L}*|erlaß|nachlass\p{L}*|lump sum|gegen\s+(?:die\s+)?zahlung|skonto|rabatt",
        r"kaution\p{L}*|(?:verwertungs|verkaufs|versteigerungs)?erlös\p{L}*|guthaben\p{L}*|\p{L}*erstattung\p{L}*|überzahlung\p{L}*|tageszins\p{L}*|täglich\p{L}*|daily|per diem|bürgschaft|sicherheit",
    ]
    .join("|");
    let payment = [
        r"(?:teil|an|sonder|ab|schuldner|zu|geld)?zahlung(?:en|seingang|seingänge)?|gezahlt\p{L}*|bezahlt\p{L}*|überwiesen\p{L}*|eingegangen\p{L}*|geleistet\p{L}*|zahlungseing\p{L}*|zahlte[nt]?|überwies(?:en)?|ueberwies(?:en)?|leistete[nt]?|entrichtet\p{L}*|erbracht\p{L}*|zurück(?:bekommen|erhalten|gezahlt|bezahlt)\p{L}*|angezahl\p{L}*|einbehalt\p{L}*|aufgerechnet\p{L}*|aufrechnung",
        r"gutschrift\p{L}*|gutgeschrieben\p{L}*|abzüglich|abzgl|minus|less|payments?|paid|credits?|verrechnet\p{L}*|vereinnahmt\p{L}*|beglichen\p{L}*",
    ]
    .join("|");
    let former = [
        r"bisher\p{L}*|zuvor|vormals|ehemals|damals|vorher\p{L}*|statt|anstatt|anstelle|formerly|previously|instead of",
        r"(?:\p{L}*forderung|\p{L}*saldo|\p{L}*betrag|stand)\s+alt|(?:vor|alt|anfangs)saldo|saldovortrag|übertrag|vortrag|(?:alter|früherer) (?:saldo|stand)",
    ]
    .join("|");
    let skip = r"gesamtschuldner\p{L}*|gesamtlaufzeit|restschuldbefreiung\p{L}*|restlaufzeit|in einer summe|teilbetrag von unserer seite|setz(?:t|en) sich\b.{0,40}?\bzusammen|zahlung offen|(?:schulden|forderungs)\p{L}*(?:plan|konto|management|kauf|anmeldung|aufstellung)\p{L}*";
    // What stands on an account, whatever it is an account of.
    let level = r"(?:gebühren|konto|schulden|forderungs|saldo|schuld)stand";
    let part = [
        r"(?:haupt|neben|teil|kapital|zins|kosten)forderung\p{L}*|hauptsachebetrag|hauptsache|hauptschuld|restliche hauptforderung|zwischensumme|teilbetr[aä]g\p{L}*|gesamtkosten|gesamtzinsen",
        r"\p{L}*zins(?:en|es)?|\p{L}*kosten|\p{L}*geb(?:ü|ue)hr\p{L}*|\p{L}*spesen|mahn\p{L}*|\p{L}*auslagen?|porto|\p{L}*zuschl[aä]g\p{L}*|\p{L}*pauschale\p{L}*|netto|umsatzsteuer|mwst|ust|vergütung",
        r"principal|interest|fees?|costs?|charges?|davon|hiervon|darin|entfallen|bestehend|consisting|comprising|of which|zuzüglich|zzgl|plus|setzt sich|nämlich",
    ]
    .join("|");
    let total = [
        r"(?:offene[rsn]? |gesamte[rsn]? )?gesamt(?:e[rsn]?)?(?:\s?-?(?:forderung|betr[aä]g|summe|saldo|schuld|rückst[aä]nd|verbindlichkeit|anspr[uü]ch|au(?:ß|ss)enst[aä]nd|kontostand|obligo|restschuld|restforderung|engagement|höhe)\p{L}*)?|insgesamt|ges|summen?|(?:end|forderungs|schuld|rück\p{L}*|haupt)summe|\p{L}*gesamtbetrag|total\p{L}*|grand total|end(?:betrag|saldo|summe)|(?:sind|wären|macht) es (?:jetzt|nun|nunmehr|insgesamt|damit|zusammen)|zusammen|alles in allem|overall|schlusssaldo|schlußsaldo",
    ]
    .join("|");
    let rest = [
        r"rest(?:liche[rnms]?\s+)?(?:forderung|schuld|betrag|saldo|summe|kapital|kaufpreis|verbindlichkeit)\p{L}*|verbleib\p{L}*|verblieben\p{L}*|\p{L}*bleib(?:t|en)|(?:bekomm|krieg)(?:e|en)\b.{0,20}?\bnoch|valutier\p{L}*|valuta|fehl(?:t|en)|rest",
        r"offen(?:e[rnms]?)?\s+(?:\p{L}+\s+)?(?:gesamt)?(?:betrag|forderung|saldo|summe|posten)\p{L}*|aussteh\p{L}*|ausst[aä]nd\p{L}*|au(?:ß|ss)enst[aä]nd\p{L}*|aushaft\p{L}*|\p{L}*saldo|salden|\p{L}*kontostand|balance|outstanding|zur zahlung|zu (?:tragen|begleichen|entrichten|überweisen)|zu zahlen\p{L}*|zahlbetrag|ablöse\p{L}*|forderungsstand|remain\p{L}*|(?:amount )?(?:now |still )?(?:due|owed|owing|payable)|owes|unpaid|arrears|offensteh\p{L}*|offen",
        r"(?:steht|stehen|sind|ist)\s+(?:(?:uns|bei uns|hier|derzeit|aktuell|somit|damit|also|mir|demnach|mithin|daher|nun|nunmehr|insgesamt)\s+)*noch",
    ]
    .join("|");
    let claim = [
        r"\p{L}*forderung(?:en|sbetrag|sbetrags|shöhe|s)?|zahlungsanspr[uü]ch\p{L}*|(?:anspruch|ansprüche|anspruchs) auf (?:\p{L}+ ){0,2}zahlung|anspruch|ansprüche|schuld(?:et|en|e|ig)?|\p{L}*schulden|\p{L}*r(?:ü|ue)ckst[aä](?:nd|nde|nden|ndes)|\p{L}*verbindlichkeit(?:en)?|(?:steht|stehen) uns|claims?|debts?|rechnungsbetrag|betrag|obligo|(?:richtig|korrekt|zutreffend) (?:ist|sind|wären?|lautet)|offene[rnms]?\s+\p{L}*(?:rechnung|rate|miete|beitr[aä]g|posten)\p{L}*",
    ]
    .join("|");
    pattern(&format!(
        r"\b(?:(?P<other>{other})|(?P<former>{former})|(?P<skip>{skip})|(?P<level>{level})|(?P<part>{part})|(?P<total>{total})|(?P<rest>{rest})|(?P<payment>{payment})|(?P<claim>{claim})|(?P<alien>gesamt\p{{L}}+))\b"
    ))
});

/// A firm's capital in a signature says nothing about anybody's debts.
static CAPITAL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"\b(?:\p{L}*(?:stamm|grund|nenn|haft|gesellschafts|aktien)kapital|share capital)\b[^.;|]*$")
});

/// An adjective or preposition that makes the label behind it a former or an alternative one.
static FORMER_BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:(?:ursprünglich|bisherig|damalig|früher|vormalig|ehemalig|anfänglich|alt|titulierte? ursprünglich|former|previous|original|initial)\p{L}*|statt|anstatt|anstelle|entgegen)\s+(?:(?:der|des|dem|einer|von|bei uns|\p{L}+en)\s+){0,2}$",
    )
});
static PAST: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:betrug|betrugen|belief|beliefen|lautete|war|waren|lag|hatte[n]?|bestand|bestanden|ursprünglich|seinerzeit|anfänglich|originally|was|were)\b",
    )
});

/// Words between "einschließlich" and the figure name what is in it, not what it is. Read before lower-casing.
static INCLUDES: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?i:einschlie(?:ß|ss)lich|einschl\.|inklusive|inkl\.|incl\.|including|samt|mitsamt|nebst)(?:\s+(?:der|die|des|den|dem|das|aller|allen|von|bis|zum|und|sowie|and|all|bisheriger?|aufgelaufenen?[rn]?|angefallenen?[rn]?|bereits|gesetzlichen?|vorgerichtlichen?|[0-9][0-9.]*|[\p{Lu}][\p{L}-]*,?)\b)+",
    )
});
static PARENTHESIS: LazyLock<Regex> = LazyLock::new(|| pattern(r"\([^()]*\)"));
static STILL: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\b(?:noch|still)(?:\s+(?:immer|insgesamt|genau|exakt))?\s*$"));
static POINTS_BACK: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:beträgt|betragen|betraegt|beläuft|belaufen|besteht|bestehen|beziffer\p{L}*|sondern|lautet|lauten|liegt|liegen|macht|ergibt|ergeben|erhöht\p{L}*|reduziert\p{L}*|ermäßigt\p{L}*|verringert\p{L}*|is|stands|amounts?|totals)\b|^\s*(?:auf|nunmehr|jetzt|aktuell)\s*$",
    )
});
static GOES_ON: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^\s*(?:(?:noch|nun|nunmehr|nur|somit|damit|jetzt|also|aktuell|derzeit|mithin|daher|richtig|still|now|only)\s*)+$",
    )
});
static PLUS_BEHIND: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^[^.;]{0,12}?\b(?:zuzüglich|zzgl|zuzgl|plus|nebst|sowie (?:zinsen|kosten))\b")
});

static BEHIND_PART: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^\s*(?:[(-]\s*)?(?:auf|an|für|in|of|as)?\s*(?:die |der |den )?(?:\p{L}*zins(?:en)?|\p{L}*kosten|\p{L}*gebühr\p{L}*|hauptforderung|\p{L}*forderung aus|mahn\p{L}*|auslagen|principal|interest|\p{L}+ fees?|fees?|costs?|charges?|collection)\b",
    )
});
static BEHIND_REST: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:[^,;.]|\.[0-9]){0,20}?\b(?:in|auf) (?:den|ihren|die|das|ihr|ihre) (?:plan|liste|aufstellung|gläubiger\p{L}*|schuldenbereinigungsplan)\b|^[^,;.]{0,40}?\b(?:offen\p{L}*|zur zahlung|ausstehend|rückständig|outstanding|due|unpaid|schuldig|unbezahlt|nicht (?:be|ge)zahlt|zu bekommen|zu erhalten|zu beanspruchen|zu fordern|zu verlangen|fällig|geschuldet|insgesamt|in total|verbleib\p{L}*|zu zahlen|aushaft\p{L}*|rückstand)\b",
    )
});
static LIST_OF_PARTS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:davon|hiervon|darin|setzt sich|setzen sich|zusammen aus|bestehend|consisting|comprising|made up|of which|aufgeteilt|zusammensetz\p{L}*|aufschlüsselung)\b",
    )
});

/// The surroundings of one figure.
pub(super) struct Context<'a> {
    /// The sentence up to the figure.
    pub(super) sentence: &'a str,
    /// From the figure before, or the sentence's start, up to the figure.
    pub(super) own: &'a str,
    /// From the figure to the next one or the sentence's end.
    pub(super) behind: &'a str,
    /// What stood before, if the figure has no words of its own.
    pub(super) above: &'a str,
}

/// Says what a figure is, and whether it is only an approximate or incomplete one. None for a firm's capital.
pub(super) fn meaning(figure: &Figure, context: &Context<'_>) -> Option<(Kind, bool)> {
    let own = bare(context.own);
    if CAPITAL.is_match(&own) {
        return None;
    }
    let behind = context.behind.to_lowercase();
    let kind = if figure.negative { Kind::Payment } else { kind(&own, &behind, context) };
    Some((kind, PLUS_BEHIND.is_match(&behind)))
}

/// A clause without what it only mentions in passing, in lower case.
fn bare(clause: &str) -> String {
    let clause = PARENTHESIS.replace_all(clause, " ");
    INCLUDES.replace_all(&clause, " ").to_lowercase()
}

fn kind(own: &str, behind: &str, context: &Context<'_>) -> Kind {
    if let Some(kind) = clauses::kind(own, behind, context.sentence) {
        return kind;
    }
    if HAFTET.is_match(own) && AUS.is_match(behind) {
        return Kind::Rest;
    }
    let mut label = nearest(own);
    if (label == Kind::Claim && REMAINS.is_match(own))
        || (label == Kind::Unlabelled && ONLY_STILL.is_match(own))
    {
        label = Kind::Rest;
    }
    if label == Kind::Unlabelled
        && !has_own_subject(context.own)
        && (POINTS_BACK.is_match(own) || (GOES_ON.is_match(own) && POINTS_BACK.is_match(context.sentence)))
    {
        label = [context.sentence, context.above]
            .iter()
            .find_map(|text| last_claim(&bare(text)))
            .unwrap_or(label);
    } else if label == Kind::Unlabelled
        && STILL.is_match(own)
        && last_claim(&bare(context.sentence)).is_some()
    {
        label = Kind::Rest;
    } else if label == Kind::Unlabelled
        && !context.above.is_empty()
        && own.trim_matches([' ', '.', ':', '=', '-', '\t']).is_empty()
    {
        label = nearest(&bare(context.above));
    }
    if is_claim(label) && PAST.is_match(own) {
        return Kind::Other;
    }
    if matches!(label, Kind::Claim | Kind::Unlabelled) {
        let in_list = LIST_OF_PARTS.is_match(&context.sentence.to_lowercase());
        if BEHIND_PART.is_match(behind)
            || (in_list && label == Kind::Unlabelled)
            || LIST_OF_PARTS.is_match(own)
        {
            return Kind::Part;
        }
        // Weaker than a label before the figure: "die Rechnung über 500 EUR ist nicht bezahlt" may be one of several.
        if BEHIND_REST.is_match(behind) {
            return if label == Kind::Claim || GOES_ON.is_match(own) { Kind::Rest } else { Kind::Claim };
        }
    }
    label
}

/// "haftet mit 4.271,38 EUR aus", as Austrian creditors say it.
static HAFTET: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bhafte[tn]\b"));
static AUS: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s*(?:unberichtigt\s+)?aus\b"));
static ONLY_STILL: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?:^|[,:;!]\s*)noch\s*$"));
static REMAINS: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bverbleib\p{L}*\b"));

/// Whether a verb before the figure has a noun of its own as its subject, so that it cannot point back to an earlier label.
fn has_own_subject(own: &str) -> bool {
    let Some(verb) = POINTS_BACK.find(&own.to_lowercase()).map(|verb| verb.start()) else { return false };
    let before = own.get(..verb).unwrap_or(own);
    let mut words = before.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    let is_noun = |word: &str| word.starts_with(char::is_uppercase) && !OPENS.is_match(word);
    words.any(is_noun) || THE_NOUN.is_match(before)
}

/// Capitalised words that are no subject of a sentence about money.
static OPENS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:Sie|Er|Es|Wir|Ich|Ihr\p{L}*|Dies\p{L}*|Die|Der|Das|Den|Dem|Jetzt|Nun\p{L}*|Derzeit|Aktuell|Heute|Insgesamt|Damit|Somit|Zum|Per|Am|Zur|Zuzeit|Zurzeit|Inzwischen|Mittlerweile|Nach|Mit|Stand|Unter|Demnach|Danach|Daher|Also|Inklusive|Einschließlich|Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember|Höhe|Tag\p{L}*|Monat\p{L}*|Jahr\p{L}*|Datum|Zeitpunkt|EUR|Euro|It|This|As|At|Currently|Today)$",
    )
});
static THE_NOUN: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\bthe\s+\p{Ll}+"));

/// Whether a kind can be the claim.
pub(super) fn is_claim(kind: Kind) -> bool {
    matches!(kind, Kind::Total | Kind::Rest | Kind::Claim)
}

/// What the last label of a clause says, in lower case.
fn nearest(clause: &str) -> Kind {
    labels(clause).last().unwrap_or(Kind::Unlabelled)
}

/// The last label of a clause that can be the claim's: the subject of a verb that stands before the figure.
pub(super) fn last_claim(clause: &str) -> Option<Kind> {
    labels(clause).filter(|kind| is_claim(*kind)).last()
}

fn labels(clause: &str) -> impl Iterator<Item = Kind> {
    LABEL.captures_iter(clause).filter_map(|label| {
        let start = label.get(0).map_or(0, |whole| whole.start());
        let former = || FORMER_BEFORE.is_match(clause.get(..start).unwrap_or_default());
        let kinds = [
            ("other", Kind::Other),
            ("former", Kind::Other),
            ("alien", Kind::Other),
            ("part", Kind::Part),
            ("payment", Kind::Payment),
        ];
        let claims =
            [("total", Kind::Total), ("rest", Kind::Rest), ("level", Kind::Rest), ("claim", Kind::Claim)];
        if let Some((_, kind)) = kinds.iter().find(|(name, _)| label.name(name).is_some()) {
            Some(*kind)
        } else if let Some((_, kind)) = claims.iter().find(|(name, _)| label.name(name).is_some()) {
            Some(if former() { Kind::Other } else { *kind })
        } else {
            None
        }
    })
}

/// Whether words beside a figure tell of a payment.
pub(super) fn tells_payment(words: &str) -> bool {
    labels(&bare(words)).any(|kind| kind == Kind::Payment)
}

/// What the words of a table's row say about all of its figures.
pub(super) fn row_kind(words: &str) -> Kind {
    nearest(&bare(words))
}
