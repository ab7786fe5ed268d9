//! Numbers in a text: where they stand, and their value in cents.
//!
//! Owns their forms: German first (`1.234,56`, `1.250,--`, `12 345,67`, `2.500` = 2500), then US (`1,234.56`). A number has no value if it
//! can be read in two ways, or if what stands beside it may belong to it.

use super::{flow::tail, pattern};
use regex::Regex;
use std::sync::LazyLock;

/// A number before its currency is known.
pub(super) struct Number {
    /// Bytes of the text.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Where the number before it ends, with its trailing minus.
    pub(super) gap: usize,
    /// None if it can be read in two ways.
    pub(super) cents: Option<i64>,
    /// Whether it was written with cents.
    pub(super) decimals: bool,
}

static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"[0-9]{1,3}(?: [0-9]{3})+(?:,[0-9]{2}\b|,-{1,2}|,–)|[0-9]+(?:[.,'’´\x{a0}][0-9]+)*(?:,(?:-{1,2}|[–—])|\.(?:-{1,2}|[–—]))?",
    )
});
/// What may stand between the groups of a number.
const MARKS: [char; 6] = ['.', ',', '\'', '’', '´', '\u{a0}'];

/// The numbers of a text that stand by themselves, thus no part of a date, a telephone number or a file number.
pub(super) fn numbers(text: &str, english: bool) -> Vec<Number> {
    let (mut numbers, mut gap) = (Vec::new(), 0);
    for found in NUMBER.find_iter(text) {
        let (mut start, written, end) = (found.start(), found.as_str(), found.end());
        let before = text.get(..start).unwrap_or_default();
        let after = text.get(end..).unwrap_or_default();
        let (mut cents, decimals) = value(written, english);
        if is_part_of_another(before, after) {
            // "2026-02-03 450,00": the day was taken for a first group. What follows it is a number, but no sure one.
            let Some((first, _)) = written.split_once(' ').filter(|_| !ends_in_another(after)) else {
                continue;
            };
            (start, cents) = (start + first.len() + 1, None);
        } else if is_joined(before, (written, decimals), after) || SCALE.is_match(after) {
            cents = None;
        }
        numbers.push(Number { start, end, gap, cents, decimals });
        gap = end + usize::from(after.starts_with('-'));
    }
    numbers
}

fn is_part_of_another(before: &str, after: &str) -> bool {
    let mut left = before.chars().rev();
    let glued = match left.next() {
        Some('-') => left.next().is_some_and(|c| c.is_alphanumeric() || matches!(c, '/' | '-' | '.')),
        Some(c) => {
            (c.is_alphanumeric() && !tail(before, 3).eq_ignore_ascii_case("EUR"))
                || matches!(c, '/' | '_' | '.' | ',' | '#' | '§')
        }
        None => false,
    };
    glued || ends_in_another(after)
}

fn ends_in_another(after: &str) -> bool {
    let mut right = after.chars();
    let glued = match right.next() {
        Some('-' | '/' | '_' | ':') => right.next().is_some_and(char::is_alphanumeric),
        Some(c) => {
            c.is_alphanumeric() && !after.get(..3).is_some_and(|unit| unit.eq_ignore_ascii_case("EUR"))
        }
        None => false,
    };
    glued || after.trim_start().starts_with(['%', '‰'])
}

static SCALE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^\s?(?:Mio|Mrd|Tsd|TEUR|T€|Tausend|Millionen|k€|million|thousand|k\b)"));

/// A range, a sum or a product, at the end of the text before a number and at the beginning of the text behind it.
static TIED_BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)[0-9]\s?(?:eur|euro|€)?\s?(?:[+x×*/]|\b(?:bis|oder|to|or)(?: zu)?)\s?(?:eur|euro|€)?\s?$")
});
static TIED_BEHIND: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^\s?(?:eur|euro|€)?\s?(?:[-‒–—―+x×*/]|(?:bis|oder|to|or)(?: zu)?\b)\s?(?:eur|euro|€)?\s?[0-9]",
    )
});
/// "412,80 EUR bis 15.01.2027", "412,80 EUR - 3. Januar": no range of money.
static DATE_BEHIND: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^[^0-9]{1,12}\s(?:0?[1-9]|[12][0-9]|3[01])\.\s?(?:(?:0?[1-9]|1[0-2])\.|\p{L})")
});
/// Marks that join no two groups, and parts of a number that are no such digits: "256''52", "256 ,52", "412 ½".
static MORE_BEHIND: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^(?: ?[.,'’´\x{a0}]+[0-9]|\s?[.,]?[\p{N}--[0-9]])"));
/// Groups of three behind a blank, and what is left of a number when a blank follows its mark: "5 200", "1. 234,56", "1.234, 56".
static GROUP_BEFORE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?:^|[^0-9])[0-9]{1,3} $|(?:^|[^0-9.])[0-9]{1,3}[.,'’´] $"));
static GROUP_BEHIND: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^[.,'’´]? [0-9]{3}(?:[^0-9]|$)|^, [0-9]{2}(?:[^0-9]|$)"));
static SHORT_DATE_BEFORE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?:^|[^0-9])[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{2} $"));
/// "Rechnung Nr. 117 412,80": groups separated by a blank might be two numbers.
static LABEL_BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)(?:nr|nummer|konto|rechnung|vertrag|zeichen|darlehen|kredit|\b(?:no|az))\.?:?\s$")
});

/// Whether what stands beside a number may belong to it.
fn is_joined(before: &str, (number, decimals): (&str, bool), after: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit();
    let length = |group: Option<&str>| group.map_or(0, str::len);
    let first = length(number.split(|c| !is_digit(c)).next());
    let last = length(number.rsplit(|c| !is_digit(c)).next());
    let (left, near) = (before.trim_end_matches(MARKS), tail(before, 24));
    let by_marks = (left.len() < before.len() && left.ends_with(is_digit)) || MORE_BEHIND.is_match(after);
    let by_ties = TIED_BEFORE.is_match(near) || (TIED_BEHIND.is_match(after) && !DATE_BEHIND.is_match(after));
    let by_groups = (first == 3 && GROUP_BEFORE.is_match(near) && !SHORT_DATE_BEFORE.is_match(near))
        || (number.len() == 2 && near.strip_suffix(", ").is_some_and(|whole| whole.ends_with(is_digit)))
        || (last <= 3 && !decimals && GROUP_BEHIND.is_match(after));
    let by_label = (number.contains([' ', '\u{a0}']) && LABEL_BEFORE.is_match(near))
        || (number.contains(' ') && before.ends_with(' ') && before.trim_end().ends_with(is_digit));
    by_marks || by_ties || by_groups || by_label
}

/// A number's value in cents, None if it has none or two, and whether it was written with cents.
fn value(written: &str, english: bool) -> (Option<i64>, bool) {
    let digits = written.trim_end_matches(['-', '–', '—']);
    let dashed = digits.len() < written.len();
    let digits = digits.trim_end_matches(['.', ',']);
    let mark = |c: char| if matches!(c, '.' | ',') { c } else { ' ' };
    let marks: Vec<char> = digits.chars().filter(|c| !c.is_ascii_digit()).map(mark).collect();
    let parts: Vec<&str> = digits.split(|c: char| !c.is_ascii_digit()).collect();
    let (Some(last_mark), Some(last)) = (marks.last(), parts.last()) else {
        return (cents(&parts, "", &marks), dashed);
    };
    let repeated = marks.iter().filter(|mark| *mark == last_mark).count() > 1;
    let whole = parts.get(..parts.len() - 1).unwrap_or_default();
    let whole_marks = marks.get(..marks.len() - 1).unwrap_or_default();
    match (*last_mark, last.len()) {
        ('.' | ',', 2) if !repeated && !dashed => (cents(whole, last, whole_marks), true),
        // "1834,5": a whole number of at least two digits before it, else it may be a rate.
        (',', 1)
            if !english
                && !dashed
                && marks.len() == 1
                && parts.first().is_some_and(|first| first.len() > 1) =>
        {
            (cents(whole, &format!("{last}0"), whole_marks), true)
        }
        // A comma before three digits groups thousands in English and is no number in German.
        (',', 3) if !english => (None, dashed),
        (_, 3) => (cents(&parts, "", &marks), dashed),
        _ => (None, dashed),
    }
}

/// Cents of the groups of a whole number and its decimals; None unless every group but the first has three digits.
fn cents(groups: &[&str], decimals: &str, marks: &[char]) -> Option<i64> {
    let first = groups.first()?;
    let grouped = groups.len() > 1;
    let sound = (!grouped || first.len() <= 3)
        && groups.iter().skip(1).all(|group| group.len() == 3)
        && marks.iter().all(|mark| Some(mark) == marks.first())
        && (!first.starts_with('0') || (first.len() == 1 && !grouped));
    let whole = groups.concat();
    if !sound || whole.len() > 9 {
        return None;
    }
    let fraction: i64 = if decimals.is_empty() { 0 } else { decimals.parse().ok()? };
    Some(whole.parse::<i64>().ok()? * 100 + fraction)
}
