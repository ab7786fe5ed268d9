//! Every figure of a mail with its meaning, read in the order of the text.
//!
//! Owns what surrounds a figure: its sentence, the figure before it, the heading of its table, and whether the passage counts at
//! all (text in quotation marks, orders to the reader, somebody else's debt). What a figure's own words say is `labels`'; which
//! figure is the claim is `amounts`'.

use super::clauses;
use super::figures::{self, Currency, Figure};
use super::flow::{self, Unit};
use super::kind;
use super::labels::{self, Context, Kind, Mention};
use super::pattern;
use regex::Regex;
use std::{ops::Range, sync::LazyLock};

/// All figures of a mail with their meaning.
pub(super) struct Statement {
    pub(super) mentions: Vec<Mention>,
    pub(super) units: Vec<Unit>,
    /// Somewhere the mail gives orders to its reader.
    pub(super) suspicious: bool,
    /// A claim is stated in another currency or in a figure that can be read in two ways.
    pub(super) unclear: bool,
    /// How many figures were read before the last payment or second claim whose figure can be read in two ways.
    pub(super) missed: Option<usize>,
    /// The mail corrects an earlier one, so that it may repeat a figure that no longer holds.
    pub(super) corrects: bool,
}

/// Text that speaks to the machine that reads it instead of to the law firm.
static ORDERS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\bignor(?:e|ier\p{L}*)\b.{0,60}\b(?:anweisung|instruction|vorgabe|regel|prompt|previous|bisherig|vorherig)|\b(?:debt_amount|is_creditor_reply|client_aktenzeichen|reference_numbers|system ?prompt|language model|sprachmodell|chatbot|llm)\b|^\W*(?:system|assistant)\s*:|\b(?:ki|ai)-?\s?(?:system|assist|modell|model|agent)|\bautomatische\p{L}*\s+\p{L}*systeme?\b|\ban (?:die|alle|das) (?:ki|automatisch\p{L}* verarbeitung)\b|\b(?:setze|setz|trage|erfasse|verbuche|gib|antworte|set|return|output|write|respond)\b.{0,60}\b(?:betrag|amount|forderung|json|claim)\b",
    )
});
/// Whether a text gives orders to the machine that reads it.
pub(super) fn gives_orders(text: &str) -> bool {
    ORDERS.is_match(text)
}

/// A longer passage in quotation marks is somebody else's text.
static QUOTED: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#""[^"]{50,}"|„[^“”]{50,}[“”]|»[^«]{50,}«|“[^”]{50,}”"#));
static OTHER_PERSON: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:meine?[rn]?\s+(?:frau|mann)|ehe(?:mann|frau|partner|gatt)\p{L}*|mutter|vaters?|bruders?|schwester|sohn(?:es)?|tochter|bürg(?:e|in|en)|namensvetter\p{L}*|namensgleich\p{L}*|gleichnamig\p{L}*|andere[nrms]?\s+(?:kunde|kundin|person|schuldner|mieter|versicherte)\p{L}*|eine[rnms]?\s+dritten)\b",
    )
});

static CORRECTION: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:korrektur|korrigier\p{L}*|berichtig(?:t|te|ten|ter|en)|zahlendreher|irrtümlich\p{L}*|versehentlich\p{L}*|tippfehler|schreibfehler|fälschlich\p{L}*|richtig (?:ist|sind|wäre\p{L}*|lautet|muss)|correction|corrected|typo|erroneously)\b",
    )
});
/// A paragraph that leads over to a figure in a line of its own.
static GOES_ON_BELOW: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)\b(?:sondern|richtig|korrekt|vielmehr|nunmehr|nämlich|but)\b[^.]{0,30}$"));

/// Longest line that can be the label of a figure on the next line.
const LONGEST_HEADING: usize = 160;

/// Figures of one unit that are read: the work on each grows with what stands before it.
const MOST_FIGURES: usize = 60;

/// Reads every figure of a text; `is_stranger` tells a sentence that is about somebody other than the client.
pub(super) fn read(text: &str, english: bool, is_stranger: impl Fn(&str) -> bool) -> Statement {
    let units = flow::units(text);
    let found = figures::figures(&units, english);
    let mut statement = Statement {
        mentions: Vec::new(),
        units: Vec::new(),
        suspicious: false,
        unclear: false,
        missed: None,
        corrects: false,
    };
    let (mut above, mut columns) = (String::new(), Columns::default());
    let mut listing_offers = false;
    for (index, (unit, figures)) in units.iter().zip(&found).enumerate() {
        let orders = ORDERS.is_match(&unit.text);
        let is_listed = flow::is_bullet(&unit.text);
        // "Wir würden uns zufriedengeben mit" and what is listed below it.
        listing_offers = (listing_offers && is_listed)
            || (!is_listed && !unit.text.ends_with(['.', '!', '?']) && clauses::is_offer(&unit.text));
        if listing_offers && is_listed {
            continue;
        }
        statement.suspicious |= orders;
        statement.corrects |= !unit.row && CORRECTION.is_match(&unit.text);
        columns.read(unit, figures.len());
        // More is a list in one line, of which nobody can tell what is what.
        let too_many = figures.len() > MOST_FIGURES;
        statement.unclear |= too_many;
        if !orders && !figures.is_empty() && !too_many {
            let quoted: Vec<Range<usize>> = QUOTED.find_iter(&unit.text).map(|quote| quote.range()).collect();
            let counts = |figure: &&Figure| !quoted.iter().any(|quote| quote.contains(&figure.start));
            let figures: Vec<&Figure> = figures.iter().filter(counts).collect();
            for sentence in flow::sentences(unit) {
                let text = unit.text.get(sentence.clone()).unwrap_or_default();
                let stranger = OTHER_PERSON.is_match(text) || is_stranger(text);
                let passage = Passage { unit, index, sentence, above: &above, stranger };
                passage.read(&figures, &columns, &mut statement);
                text.clone_into(&mut above);
            }
        }
        above.clear();
        if figures.is_empty() && unit.text.len() < LONGEST_HEADING {
            above.push_str(&unit.text);
        } else if let Some(last) = figures.last().filter(|_| !unit.row) {
            let tail = unit.text.get(last.end..).unwrap_or_default();
            if GOES_ON_BELOW.is_match(tail) {
                above.push_str(&unit.text);
            }
        }
        from_to(&mut statement.mentions, &units);
    }
    statement.units = units;
    statement
}

/// A sentence or row.
struct Passage<'a> {
    unit: &'a Unit,
    index: usize,
    sentence: Range<usize>,
    above: &'a str,
    stranger: bool,
}

impl Passage<'_> {
    fn text(&self, from: usize, to: usize) -> &str {
        self.unit.text.get(from..to).unwrap_or_default()
    }

    fn read(&self, figures: &[&Figure], columns: &Columns, statement: &mut Statement) {
        let (start, end) = (self.sentence.start, self.sentence.end);
        let figures: Vec<&&Figure> =
            figures.iter().filter(|figure| self.sentence.contains(&figure.start)).collect();
        let settled = kind::is_settled(self.text(start, end));
        let row =
            figures.first().map_or(Kind::Unlabelled, |first| labels::row_kind(self.text(start, first.start)));
        let mut own_from = start;
        for (place, figure) in figures.iter().enumerate() {
            let until = figures.get(place + 1).map_or(end, |next| next.start);
            let behind = self.text(figure.end, until);
            let own = self.text(own_from, figure.start);
            let above = if place == 0 && !self.unit.row { self.above } else { "" };
            let context = Context { sentence: self.text(start, figure.start), own, behind, above };
            // A comma ends what was said of this figure.
            own_from = figure.end + behind.find([',', ';']).unwrap_or(0);
            let Some((mut kind, doubt)) = labels::meaning(figure, &context) else { continue };
            if let Some(is_latest) = columns.at_the_latest(figures.len(), place).filter(|_| self.unit.row) {
                kind = if is_latest { row } else { Kind::Other };
            } else if let Some(headed) = columns.headed(&self.unit.text, figures.len(), place) {
                kind = if figure.negative { Kind::Payment } else { headed };
            } else if self.unit.row && figures.len() > 1 {
                kind = columns.kind(kind, row, place + 1 == figures.len(), adds_up(&figures));
            }
            if is_sum_so_far(own, figures.get(..place).unwrap_or_default(), figure) {
                kind = Kind::Total;
            }
            let asked = labels::is_claim(kind) && self.text(start, end).trim_end().ends_with('?');
            if self.stranger || asked {
                kind = Kind::Other;
            }
            let Some(cents) = figure.cents.filter(|_| figure.currency == Currency::Euro) else {
                // Not seen, a payment or a second claim would leave the first claim as it is.
                let pays =
                    kind == Kind::Payment || labels::tells_payment(own) || labels::tells_payment(behind);
                let mut before = statement.mentions.iter().filter(|before| before.unit == self.index);
                let second = kind == Kind::Unlabelled && before.any(|before| labels::is_claim(before.kind));
                if figure.currency == Currency::Euro && (pays || second) {
                    statement.missed = Some(statement.mentions.len());
                }
                statement.unclear |= labels::is_claim(kind);
                continue;
            };
            let before = statement.mentions.last().filter(|before| before.unit == self.index);
            let before = before.map(|before| before.kind).filter(|kind| labels::is_claim(*kind));
            kind = match (kind, before) {
                (Kind::Total | Kind::Rest | Kind::Claim, _) if settled && cents > 0 => Kind::Payment,
                (Kind::Unlabelled, Some(before)) if ADDED.is_match(own) => before,
                (kind, _) => kind,
            };
            statement.mentions.push(Mention {
                unit: self.index,
                start: figure.start,
                end: figure.end,
                cents,
                kind,
                doubt,
            });
        }
    }
}

/// A figure that comes on top of the one before it, as another claim.
static ADDED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:weitere[nrs]?|zusätzlich\p{L}*|außerdem|daneben|ferner|hinzu|sowie|und|additional|another|and)\b",
    )
});
static FROM: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\b(?:von|from)\s*$"));
static TO: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)^\s*(?:auf|to)\s*(?:nunmehr|jetzt|now)?\s*$"));

static CHANGED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:erhöh\p{L}*|gestiegen|reduzier\p{L}*|ermäßig\p{L}*|verringer\p{L}*|verminder\p{L}*|gesunken|gesenkt|increased|reduced)\b",
    )
});

/// "von 500 EUR auf 600 EUR": the first was, the second is.
fn from_to(mentions: &mut [Mention], units: &[Unit]) {
    let [.., first, second] = mentions else { return };
    let Some(unit) = units.get(first.unit).filter(|_| first.unit == second.unit) else { return };
    let before = unit.text.get(..first.start).unwrap_or_default();
    let between = unit.text.get(first.end..second.start).unwrap_or_default();
    if FROM.is_match(before) && TO.is_match(between) && second.kind != Kind::Other {
        let changed = unit.text.get(second.end..).is_some_and(|behind| CHANGED.is_match(behind))
            || CHANGED.is_match(before);
        if labels::is_claim(first.kind) || (changed && labels::last_claim(&before.to_lowercase()).is_some()) {
            second.kind = Kind::Rest;
        }
        first.kind = Kind::Other;
    }
}

/// "1.800,00 EUR + 50,00 EUR = 1.850,00 EUR": an addition that is right states its result.
fn is_sum_so_far(own: &str, before: &[&&Figure], figure: &Figure) -> bool {
    let signed = |figure: &&&Figure| figure.cents.map(|cents| if figure.negative { -cents } else { cents });
    let sum: Option<i64> = before.iter().map(signed).sum();
    before.len() >= 2 && own.trim_end().ends_with('=') && sum.is_some() && sum == figure.cents
}

/// "Summe  1.000,00  200,00  1.200,00": the last column is what the columns before it come to.
fn adds_up(figures: &[&&Figure]) -> bool {
    let cents: Option<Vec<i64>> = figures.iter().map(|figure| figure.cents).collect();
    match cents.as_deref() {
        Some([first, between @ .., last]) if !between.is_empty() && *last > 0 => {
            let between: i64 = between.iter().sum();
            first + between == *last || (first - between == *last && between > 0)
        }
        _ => false,
    }
}

/// A word that is no currency.
static ANY_WORD: LazyLock<Regex> = LazyLock::new(|| pattern(r"\p{L}{4,}|\b(?:am|bis|von|vom|zum)\b"));
/// The headings of a table with more than one column of figures.
#[derive(Default)]
struct Columns {
    last_is_open: bool,
    /// How many columns are headed by dates, and which of them by the latest.
    dates: Option<(usize, usize)>,
    /// The words of the heading above, cell by cell, for a row of nothing but figures.
    cells: Vec<Kind>,
}

static DATES: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\b([0-9]{1,2})\.([0-9]{1,2})\.((?:20)?[0-9]{2})\b"));

/// The columns of a heading that is made of dates; None if the latest is not the only one of its kind.
fn dated_columns(heading: &str) -> Option<(usize, usize)> {
    let dates: Vec<(u32, u32, u32)> = DATES
        .captures_iter(heading)
        .filter_map(|date| {
            let part = |at: usize| date.get(at)?.as_str().parse::<u32>().ok();
            Some((part(3)? % 100, part(2)?, part(1)?))
        })
        .collect();
    let latest = dates.iter().max()?;
    let is_only = dates.iter().filter(|date| *date == latest).count() == 1;
    let at = dates.iter().position(|date| date == latest)?;
    (dates.len() > 1 && is_only).then_some((dates.len(), at))
}

static HEADINGS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(?:betrag|soll|rechnung|forderung|haupt|datum|buchung|amount|date).*\s{2,}.*\b(?:\p{L}*saldo|offen\p{L}*|rest\p{L}*|gesamt\p{L}*|balance|open|summe|ausst\p{L}*)\W*(?:(?i:eur|euro)|€)?\W*$",
    )
});

impl Columns {
    /// What the heading of its column says of a figure in a row without words.
    fn headed(&self, row: &str, figures: usize, place: usize) -> Option<Kind> {
        let is_bare = self.cells.len() == figures && !ANY_WORD.is_match(row);
        self.cells.get(place).copied().filter(|_| is_bare)
    }

    fn read(&mut self, unit: &Unit, figures: usize) {
        if figures == 0 {
            let cells: Vec<&str> =
                unit.text.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
            self.cells =
                if cells.len() > 1 { cells.into_iter().map(labels::row_kind).collect() } else { Vec::new() };
        }
        if figures == 0 && unit.text.contains("  ") {
            self.last_is_open = HEADINGS.is_match(&unit.text);
            self.dates =
                dated_columns(&unit.text).or(self.dates.filter(|_| !unit.row || unit.text.contains("--")));
        }
    }

    /// Of a row below dates only the figure of the latest date says how things stand.
    fn at_the_latest(&self, figures: usize, place: usize) -> Option<bool> {
        self.dates.filter(|(count, _)| *count == figures).map(|(_, latest)| latest == place)
    }

    /// In a row of several figures only the last can be the claim, and only of a row of totals under such a heading.
    fn kind(&self, own: Kind, row: Kind, last: bool, adds_up: bool) -> Kind {
        match row {
            Kind::Total | Kind::Rest if self.last_is_open || adds_up => {
                if last {
                    row
                } else {
                    Kind::Part
                }
            }
            Kind::Total | Kind::Rest => row,
            Kind::Claim | Kind::Part | Kind::Payment | Kind::Other | Kind::Unlabelled
                if labels::is_claim(own) && own != Kind::Claim =>
            {
                own
            }
            Kind::Claim | Kind::Part | Kind::Payment | Kind::Other | Kind::Unlabelled => Kind::Part,
        }
    }
}
