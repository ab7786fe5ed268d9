//! Figures of money in a text: numbers with a currency and a sign.
//!
//! A figure that can be read in two ways has no value: a person reads it. What a figure means is `labels`' to say.

use super::{
    flow::Unit,
    numbers::{Number, numbers},
    pattern,
};
use regex::Regex;
use std::sync::LazyLock;

/// What a figure is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Currency {
    /// Euros.
    Euro,
    /// Any other currency.
    Foreign,
}

/// A figure of money.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    /// Bytes of the unit's text, the currency included.
    pub(super) start: usize,
    pub(super) end: usize,
    /// None if the figure can be read in two ways.
    pub(super) cents: Option<i64>,
    pub(super) currency: Currency,
    pub(super) negative: bool,
}

static UNIT_BEFORE: LazyLock<Regex> =
    LazyLock::new(|| pattern(&format!(r"(?:^|[^\p{{L}}])({CURRENCIES})\s{{0,12}}[-‒–—―+]?\s{{0,12}}$")));
static UNIT_AFTER: LazyLock<Regex> =
    LazyLock::new(|| pattern(&format!(r"^-?\s{{0,3}}({CURRENCIES})(?:$|[^\p{{L}}])")));
static EURO: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)^(?:eur|euros?|€)$"));
const CURRENCIES: &str = r"(?i:eur|euros?)|€|(?i:chf|sfr\.?|usd|us-?dollar|dollar|gbp|pln|czk|dkk|sek|nok|huf|jpy|try|aud|cad|franken|pfund|zloty|kronen)|DM|Fr\.|US\$|[$£¥₺]|zł|Kč";

/// A line that gives the currency of the figures below it, or of all.
static HEADER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?i)\b(?:betrag|beträge|saldo|summe|forderung|alle|angaben|werte|offen|amounts?|balance|soll)\b.{{0,40}}?(?:^|[^\p{{L}}])({CURRENCIES})(?:$|[^\p{{L}}])|[\[(/]\s?({CURRENCIES})\s?[\])]|(?:^|\s)in ({CURRENCIES})(?:$|[^\p{{L}}])"
    ))
});
static FOR_ALL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)\b(?:alle|sämtliche|all)\b.{0,20}\b(?:beträge|angaben|werte|zahlen|amounts|figures)\b")
});

/// Every dash that may be meant as a minus; `mail_text` has turned U+2010, U+2011 and U+2212 into '-'.
const DASHES: [char; 5] = ['-', '‒', '–', '—', '―'];

/// Lines without a figure after which a table's header no longer holds.
const TABLE_GAP: usize = 4;

/// The figures of money of each unit.
pub(super) fn figures(units: &[Unit], english: bool) -> Vec<Vec<Figure>> {
    let whole_mail =
        units.iter().filter(|unit| FOR_ALL.is_match(&unit.text)).find_map(|unit| header(&unit.text));
    // A German table without any currency is in euros; one foreign word in the mail leaves that open.
    let unspoken = !english && !units.iter().any(|unit| names_foreign(&unit.text));
    let mut table: Option<(Currency, usize)> = None;
    let mut all = Vec::with_capacity(units.len());
    for unit in units {
        let numbers = numbers(&unit.text, english);
        let mut found = with_currency(&unit.text, &numbers, unit.row);
        if unit.row {
            complete(&mut found, &unit.text, &numbers);
        }
        if found.is_empty() {
            let ends_in_figure = unit.row
                && numbers
                    .last()
                    .and_then(|last| unit.text.get(last.end..))
                    .is_some_and(|end| end.len() <= 2 || SIDE.is_match(end));
            match (ends_in_figure, whole_mail.or(table.map(|(currency, _)| currency))) {
                (true, Some(currency)) => {
                    let decimals = numbers.iter().filter(|number| number.decimals);
                    found.extend(decimals.map(|number| {
                        figure(&unit.text, number, currency, (number.start, number.end), true)
                    }));
                    table = table.map(|(currency, _)| (currency, 0));
                }
                _ => {
                    let header = header(&unit.text)
                        .or_else(|| (unspoken && COLUMN.is_match(&unit.text)).then_some(Currency::Euro));
                    table = match (header, table) {
                        (Some(currency), _) if unit.text.len() < 200 => Some((currency, 0)),
                        (_, Some((currency, gap))) if gap < TABLE_GAP => Some((currency, gap + 1)),
                        _ => None,
                    };
                }
            }
        }
        all.push(found);
    }
    all
}

/// The cents of what the units write as money: figures in euros, and numbers with cents that have no currency. Not what is negative.
pub(super) fn written(units: &[Unit], english: bool) -> Vec<i64> {
    let mut all = Vec::new();
    for (unit, found) in units.iter().zip(figures(units, english)) {
        let inside =
            |number: &Number| found.iter().any(|other| (other.start..other.end).contains(&number.start));
        let bare = numbers(&unit.text, english);
        let bare = bare.iter().filter(|number| number.decimals && !inside(number));
        let bare = bare
            .map(|number| figure(&unit.text, number, Currency::Euro, (number.start, number.end), unit.row));
        let bare: Vec<Figure> = bare.collect();
        let euros = found.iter().chain(&bare).filter(|figure| figure.currency == Currency::Euro);
        all.extend(euros.filter(|figure| !figure.negative).filter_map(|figure| figure.cents));
    }
    all
}

/// The debit or credit mark behind a figure of a ledger.
static SIDE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s*(?:S|H|Soll|Haben|D|C|DR|CR)\s*$"));
/// The heading of a table with a column of money.
static COLUMN: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)\s{2,}(?:\p{L}*betrag|\p{L}*saldo|soll|summe|offen\p{L}*|gesamt)(?:$|\s{2,})")
});
static NAMED: LazyLock<Regex> =
    LazyLock::new(|| pattern(&format!(r"(?:^|[^\p{{L}}])({CURRENCIES})(?:$|[^\p{{L}}])")));

fn names_foreign(text: &str) -> bool {
    NAMED
        .captures_iter(text)
        .filter_map(|found| found.get(1))
        .any(|name| currency(name.as_str()) == Currency::Foreign && name.as_str() != "Fr.")
}

/// A row that names its currency once has it in all of its columns.
fn complete(found: &mut Vec<Figure>, text: &str, numbers: &[Number]) {
    let Some(currency) = found.first().map(|first| first.currency) else { return };
    if found.iter().any(|figure| figure.currency != currency) {
        return;
    }
    for number in numbers.iter().filter(|number| number.decimals) {
        let known = found.iter().any(|figure| figure.start <= number.start && number.end <= figure.end);
        if !known {
            found.push(figure(text, number, currency, (number.start, number.end), true));
        }
    }
    found.sort_by_key(|figure| figure.start);
}

fn header(text: &str) -> Option<Currency> {
    let found = HEADER.captures(text)?;
    let name = found.iter().skip(1).flatten().next()?;
    Some(currency(name.as_str()))
}

fn currency(name: &str) -> Currency {
    if EURO.is_match(name) { Currency::Euro } else { Currency::Foreign }
}

fn with_currency(text: &str, numbers: &[Number], row: bool) -> Vec<Figure> {
    let mut found: Vec<Figure> = Vec::new();
    let mut taken = 0;
    for (index, number) in numbers.iter().enumerate() {
        let before = text.get(taken..number.start).and_then(|left| UNIT_BEFORE.captures(left)?.get(1));
        let after = text.get(number.end..).and_then(|right| UNIT_AFTER.captures(right)?.get(1));
        if let Some(unit) = before {
            found.push(figure(
                text,
                number,
                currency(unit.as_str()),
                (taken + unit.start(), number.end),
                row,
            ));
        } else if let Some(unit) = after {
            // "Rechnung 88 EUR 12,50": between two numbers the currency belongs to the one with decimals.
            let (from, to) = (number.end + unit.start(), number.end + unit.end());
            let next = numbers
                .get(index + 1)
                .filter(|next| text.get(to..next.start).is_some_and(|gap| gap.trim().is_empty()));
            if number.decimals || !next.is_some_and(|next| next.decimals) {
                found.push(figure(text, number, currency(unit.as_str()), (number.start, to), row));
            } else {
                taken = from;
                continue;
            }
        }
        taken = found.last().map_or(number.end, |last| last.end.max(number.end));
    }
    found
}

fn figure(
    text: &str,
    number: &Number,
    currency: Currency,
    (start, end): (usize, usize),
    row: bool,
) -> Figure {
    let after = text.get(number.end..).unwrap_or_default();
    let lead = text.get(number.gap..start).unwrap_or_default();
    let unit_and_sign = text.get(start..number.start).unwrap_or_default();
    let is_unit = |c: char| c.is_alphabetic() || "€$£¥₺.".contains(c);
    let last = lead.rsplit(char::is_alphanumeric).next().unwrap_or_default();
    let between = format!("{last}{}", unit_and_sign.trim_start_matches(is_unit));
    // In a row "- 9,00" is a minus too; with more blanks it may be an empty column.
    let apart = between.strip_suffix(' ').unwrap_or(&between);
    let minus = between.ends_with('-') || (row && apart.ends_with(['-', '–']));
    let dash_behind = [after, text.get(end..).unwrap_or_default()].into_iter().find_map(|behind| {
        let mut behind = behind.chars();
        let dash = behind.next().filter(|c| DASHES.contains(c));
        dash.filter(|_| !behind.next().is_some_and(char::is_alphanumeric))
    });
    let in_credit = row && matches!(after.trim(), "H" | "C" | "CR" | "Haben" | "H EUR" | "EUR H");
    let deducted = row && text.trim_start().starts_with("./.");
    let negative = deducted || minus || in_credit || dash_behind == Some('-');
    // Any other dash is a minus, a dash or the sign of a list: nobody can tell.
    let dashes = between.matches(DASHES).count() > usize::from(minus);
    let unclear = dashes || dash_behind.is_some_and(|dash| dash != '-');
    Figure { start, end, cents: number.cents.filter(|_| !unclear), currency, negative }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extraction::rules::flow;

    fn read(text: &str) -> Vec<(Option<i64>, Currency, bool)> {
        let found = figures(&flow::units(text), false);
        found.into_iter().flatten().map(|figure| (figure.cents, figure.currency, figure.negative)).collect()
    }

    #[test]
    fn number_forms() {
        let euro = |text: &str| read(text).first().and_then(|(cents, ..)| *cents);
        for (text, cents) in [
            ("1.234,56 EUR", 123_456),
            ("1.250,-- EUR", 125_000),
            ("12\u{a0}345,67 €", 1_234_567),
            ("2.500 EUR", 250_000),
            ("EUR 2345,18", 234_518),
            ("€1.712,40", 171_240),
            ("EUR 2,418.40", 241_840),
            ("500,- Euro", 50_000),
            ("50EUR", 5_000),
            ("1 234,50 €", 123_450),
            ("0,00 EUR", 0),
            ("Rechnung 88 EUR 12,50", 1_250),
            ("1'250.00 EUR", 125_000),
            ("EUR 1834,5", 183_450),
        ] {
            assert_eq!(euro(text), Some(cents), "{text}");
        }
        for text in
            ["11.02.2026", "Az. 83/26 EUR", "4,5 % EUR", "1.234,56", "A-12 EUR", "DE00 1234", "3 Mio EUR"]
        {
            assert!(read(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_has_no_value() {
        for text in [
            "1,234 EUR",
            "12.34.567 EUR",
            "0517 EUR",
            "1.2345,00 EUR",
            "Nr. 117 412,80 EUR",
            "5,5 EUR",
            "256''52 EUR",
            "EUR 256''52",
            "EUR 256.'52",
            "5 200 EUR",
            "52 000 EUR",
            "EUR 5 200",
            "1 234 567 EUR",
            "beträgt EUR 500–600",
            "beträgt –105’0100000,´2352 EUR",
            "beträgt - 9 EUR",
            "beträgt –9 EUR",
            "–9 EUR",
            "beträgt ‒9 EUR",
            "beträgt — 9,00 EUR",
            "beträgt —,'14040 EUR",
            "beträgt € - 9,00",
            "zwischen 100 – 200 EUR",
            "Summe: - 9,00 €",
            "- 9,00 EUR Zinsen",
            "Summe     -   9,00 €",
            "Summe     — 9,00 €",
            "Summe     -'9,00 €",
        ] {
            assert!(matches!(read(text).first(), Some((None, ..))), "{text}: {:?}", read(text));
        }
        for text in [
            "zum 31.12.2025 412,80 EUR",
            "zum 31.12.25 412,80 EUR",
            "12\u{a0}345,67 EUR, am 3.12. 412,80 EUR",
        ] {
            assert_eq!(read(text).last().and_then(|(cents, ..)| *cents), Some(41_280), "{text}");
        }
    }

    #[test]
    fn headers_and_signs() {
        assert_eq!(read("Zahlung    –50,00 EUR"), [(Some(5_000), Currency::Euro, true)]);
        let table = "Text      Betrag EUR\nRechnung      89,95\nGutschrift      44,98-\nZahlung      -5,00\n";
        let signs: Vec<bool> = read(table).into_iter().map(|(.., negative)| negative).collect();
        assert_eq!(signs, [false, true, true]);
        assert_eq!(read("CHF 8'512.35"), [(Some(851_235), Currency::Foreign, false)]);
        assert_eq!(read("Summe   10,00\n\nAlle Beträge in Euro").len(), 1);
        let cents =
            |text: &str| -> Vec<i64> { read(text).into_iter().filter_map(|(cents, ..)| cents).collect() };
        assert_eq!(cents("Summe EUR   10,00   2,50   12,50"), [1_000, 250, 1_250]);
        assert_eq!(cents("Beleg   Betrag   S/H\nA 7   980,00   S\nSaldo   980,00   S"), [98_000, 98_000]);
        assert!(read("Beleg   Betrag\nA 7   980,00\n\nKurs 0,93 für CHF").is_empty());
    }
}
