//! A mail's text in the pieces that a statement about money lives in: units and their sentences.
//!
//! Owns the joining of hard-wrapped lines into paragraphs and the telling apart of prose from rows of a table, whose lines
//! must never be joined. It knows nothing of amounts or names.

use super::pattern;
use regex::Regex;
use std::{ops::Range, sync::LazyLock};

/// A paragraph, or one line that stands by itself.
pub(super) struct Unit {
    pub(super) text: String,
    /// A line with columns.
    pub(super) row: bool,
}

/// Mail programs wrap text at some 60 to 80 characters: a shorter line was ended by its writer.
const SHORTEST_WRAPPED: usize = 50;
/// Units that are read. A ledger of a decade has some 500 lines; beyond this nobody states a claim.
const MOST_UNITS: usize = 20_000;
/// Bytes of one unit that are read, so that the work on each of its figures stays bounded.
const LONGEST_UNIT: usize = 10_000;

static COLUMNS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"\S(?: {3,}|\t+| ?[._]{4,} ?)\S|\S {2,}(?:EUR|Euro|€|CHF|USD|GBP|[-+]?[0-9])|\S\s*[._]{4,}\s*\S")
});
/// "R e s t b e t r a g": letters spaced out for emphasis.
static SPACED_OUT: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?:^|\s)(?:\p{L} ){4,}\p{L}(?:\s|$)"));

fn closed_up(line: &str) -> String {
    SPACED_OUT
        .replace_all(line, |found: &regex::Captures<'_>| {
            let letters: String = found
                .iter()
                .flatten()
                .map(|all| all.as_str())
                .collect::<String>()
                .split_whitespace()
                .collect();
            format!(" {letters} ")
        })
        .trim()
        .to_owned()
}

/// A line of an export: "1;Miete Januar;950.00".
static EXPORTED: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^[^;]{0,60};[^;]{0,80};(?:[^; ][^;]{0,60})?(?:;[^;]{0,60}){0,6}$"));
static BULLET: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(?:[-*•–·]|\d{1,2}[.)]|[a-z]\))\s"));

/// Whether a unit is one of a list.
pub(super) fn is_bullet(text: &str) -> bool {
    BULLET.is_match(text)
}

/// "zum / 1. Juni": a date's day at a line's start is no number of a list.
static DAY: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^\d{1,2}\.\s(?:\p{Ll}|Jan|Feb|Mär|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez)"));

/// "monatliche Rate: 50,00 EUR" is a line of its own though it starts small.
static LABELLED: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[^:.,;]{3,40}:\s*\S*[0-9]"));
static CURRENCY_LAST: LazyLock<Regex> = LazyLock::new(|| pattern(r"\p{L} (?:EUR|Euro|€)$"));

/// Whether a line's end separates a currency from its figure.
fn splits_amount(end: &str, next: &str) -> bool {
    let digit = |c: char| c.is_ascii_digit();
    (CURRENCY_LAST.is_match(end) && next.starts_with(digit))
        || (end.ends_with(digit) && next.starts_with(['€', 'E']) && CURRENCY_FIRST.is_match(next))
}

static CURRENCY_FIRST: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^(?:EUR|Euro|€)(?:$|[^\p{L}0-9]*$|[^\p{L}]*\s\p{Ll})"));

/// The last characters of a text.
pub(super) fn tail(text: &str, length: usize) -> &str {
    text.char_indices().rev().nth(length - 1).map_or(text, |(from, _)| text.get(from..).unwrap_or(text))
}

/// The units of a text in order.
pub(super) fn units(text: &str) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let (mut open, mut in_paragraph) = (false, false);
    for line in text.lines() {
        let line = line.trim().trim_matches('\u{a0}');
        let closed = SPACED_OUT.is_match(line).then(|| closed_up(line));
        let line = closed.as_deref().unwrap_or(line);
        let cells = EXPORTED.is_match(line).then(|| line.replace(';', "   "));
        let line = cells.as_deref().map_or(line, str::trim);
        if line.is_empty() {
            (open, in_paragraph) = (false, false);
            continue;
        }
        let row = COLUMNS.is_match(line);
        let goes_on = line.starts_with(char::is_lowercase)
            && !LABELLED.is_match(line)
            && !units.last().is_none_or(|unit| unit.row);
        let amount_goes_on =
            units.last().is_some_and(|unit| !unit.row && splits_amount(tail(&unit.text, 8), line));
        let joins = (open || (in_paragraph && (goes_on || amount_goes_on)))
            && !row
            && (!BULLET.is_match(line) || DAY.is_match(line));
        if let Some(unit) =
            units.last_mut().filter(|unit| joins && unit.text.len() + line.len() < LONGEST_UNIT)
        {
            unit.text.push(' ');
            unit.text.push_str(line);
        } else {
            let room = MOST_UNITS.saturating_sub(units.len());
            units.extend(pieces(line).take(room).map(|piece| Unit { text: piece.to_owned(), row }));
        }
        in_paragraph = true;
        let shortest = if joins { SHORTEST_WRAPPED / 2 } else { SHORTEST_WRAPPED };
        open = !row && line.chars().count() >= shortest && !line.ends_with(['.', '!', '?', ':', ';']);
    }
    units
}

/// A line that is too long to be one unit, cut at blanks.
fn pieces(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let end = rest.floor_char_boundary(LONGEST_UNIT);
        let blank = rest.get(..end).and_then(|piece| piece.rfind(' ')).filter(|_| rest.len() > end);
        let (piece, left) = rest.split_at(blank.unwrap_or(end));
        rest = left;
        (!piece.is_empty()).then(|| piece.trim())
    })
}

static ABBREVIATION: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(?:\b\p{L}|\b(?:dr|prof|mag|dipl|ing|nr|no|az|abs|art|ziff|str|tel|inkl|incl|zzgl|abzgl|bzw|ca|gem|lt|geb|kd|vers|rg|re|kto|mtl|ref|ggf|evtl|usw|etc|vgl|st|frl|mr|mrs|ms|ges))\.$",
    )
});

/// The sentences of a unit, as byte ranges. A row is one sentence.
pub(super) fn sentences(unit: &Unit) -> Vec<Range<usize>> {
    let text = &unit.text;
    if unit.row {
        return std::iter::once(0..text.len()).collect();
    }
    let mut sentences = Vec::new();
    let mut start = 0;
    let mut ends = text.char_indices().peekable();
    while let Some((at, c)) = ends.next() {
        let before_blank = ends.peek().is_some_and(|(_, next)| next.is_whitespace());
        if !matches!(c, '.' | '!' | '?') || !before_blank {
            continue;
        }
        let following = text.get(at + 1..).unwrap_or_default().trim_start();
        let sentence = text.get(start..=at).unwrap_or_default();
        let goes_on = following.starts_with(|next: char| next.is_lowercase())
            || (c == '.' && (ABBREVIATION.is_match(tail(sentence, 8)) || is_ordinal(sentence)));
        if !goes_on {
            sentences.push(start..at + 1);
            start = at + 1;
        }
    }
    if !text.get(start..).unwrap_or_default().trim().is_empty() {
        sentences.push(start..text.len());
    }
    sentences
}

/// A date's day or a list's number (`zum 1. April`), which ends no sentence.
fn is_ordinal(sentence: &str) -> bool {
    let word = sentence.trim_end_matches('.').rsplit(char::is_whitespace).next().unwrap_or_default();
    !word.is_empty() && word.len() <= 2 && word.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_lines_are_joined_and_rows_are_not() {
        let text = "Unsere Forderung gegen die von Ihnen vertretene Person beträgt zum\n1. Juni nach Dr. Sommer 5 EUR. Mehr nicht.\n\nZinsen   1,00 EUR\nSumme   6,00 EUR\n";
        let units = units(text);
        assert_eq!(units.iter().map(|unit| unit.row).collect::<Vec<_>>(), [false, true, true]);
        let prose = &units[0];
        let split: Vec<&str> = sentences(prose).into_iter().map(|range| prose.text[range].trim()).collect();
        assert_eq!(split.len(), 2, "{split:?}");
        assert_eq!(split[1], "Mehr nicht.");
    }
}
