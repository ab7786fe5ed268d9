//! THE current total claim of a mail, or nothing.
//!
//! Owns the choice among the figures that `statement` read: total over parts, what remains over what was,
//! and None as soon as two readings are left. A wrong amount is far worse than a missing one. It never adds up a total that the
//! mail does not state; sums only confirm one that it does.

use super::flow;
use super::labels::{self, Kind, Mention};
use super::pattern;
use super::statement::Statement;
use regex::Regex;
use std::sync::LazyLock;

/// The claim found in a mail.
pub(super) struct Claim {
    pub(super) cents: i64,
    /// 0 to 1.
    pub(super) confidence: f64,
    /// The sentence or row that carries it.
    pub(super) sentence: String,
}

/// Words of a sentence that is hardly more than a figure; in a longer one the figure might be anything.
const LONGEST_BARE: usize = 6;

/// Sums of a mail that are compared with each other; a statement has a handful.
const MOST_SUMS: usize = 8;

impl Statement {
    /// The claim. With `only_zero` the mail says that nothing is owed any more, and only a written zero is an amount.
    pub(super) fn claim(&self, only_zero: bool) -> Option<Claim> {
        let candidates: Vec<&Mention> =
            self.mentions.iter().filter(|mention| labels::is_claim(mention.kind)).collect();
        let found = self.chosen(only_zero, candidates)?;
        let is_doubtful = !only_zero && self.outgrows(found.cents);
        Some(Claim {
            confidence: if is_doubtful { found.confidence.min(0.6) } else { found.confidence },
            ..found
        })
    }

    /// Whether a part or a line of a table is larger than what is called no more than a claim, and no payment is told that would
    /// explain it.
    fn outgrows(&self, claim: i64) -> bool {
        let is_summed_up =
            |mention: &Mention| mention.cents == claim && matches!(mention.kind, Kind::Total | Kind::Rest);
        if self.mentions.iter().any(is_summed_up) {
            return false;
        }
        let is_line = |mention: &Mention| self.units.get(mention.unit).is_some_and(|unit| unit.row);
        let is_larger = |mention: &Mention| {
            mention.cents > claim
                && (mention.kind == Kind::Part || (mention.kind == Kind::Unlabelled && is_line(mention)))
        };
        self.mentions.iter().any(is_larger)
            && !self.mentions.iter().any(|mention| mention.kind == Kind::Payment)
    }

    fn chosen(&self, only_zero: bool, candidates: Vec<&Mention>) -> Option<Claim> {
        if only_zero {
            return candidates
                .into_iter()
                .find(|mention| mention.cents == 0)
                .map(|mention| self.found(mention, 0.9));
        }
        if self.unclear || self.is_incomplete() {
            return None;
        }
        let of = |kind: Kind| {
            distinct(candidates.iter().filter(|mention| mention.kind == kind).map(|mention| mention.cents))
        };
        let (totals, rests, claims) = (of(Kind::Total), of(Kind::Rest), of(Kind::Claim));
        let loose = |mention: &Mention| {
            mention.kind == Kind::Unlabelled && self.units.get(mention.unit).is_some_and(|unit| !unit.row)
        };
        if self.corrects && self.mentions.iter().any(loose) {
            return None;
        }
        if self.suspicious && distinct(candidates.iter().map(|mention| mention.cents)).len() > 1 {
            return None;
        }
        let cents = match (totals.as_slice(), rests.as_slice()) {
            ([], []) => return self.weaker(&claims),
            ([], [rest]) => *rest,
            ([], several) => self.sum_among(several).or_else(|| self.last_of(several))?,
            ([total], []) => self.total_over(*total, &claims)?,
            ([total], several) => self.rest_of(*total, several)?,
            (several, rests) => self.settle(several, rests)?,
        };
        let mention =
            candidates.iter().rfind(|mention| mention.cents == cents && mention.kind != Kind::Claim);
        let mention = mention.or_else(|| candidates.iter().rfind(|mention| mention.cents == cents))?;
        Some(self.found(mention, if mention.doubt { 0.6 } else { 0.92 }))
    }

    /// Whether a payment or a second claim could not be read, and no sum or remainder follows that counts it.
    fn is_incomplete(&self) -> bool {
        let is_sum = |mention: &Mention| matches!(mention.kind, Kind::Total | Kind::Rest);
        self.missed.is_some_and(|from| !self.mentions.iter().skip(from).any(is_sum))
    }

    fn found(&self, mention: &Mention, confidence: f64) -> Claim {
        let unit = self.units.get(mention.unit);
        let sentence = unit.and_then(|unit| {
            let range = flow::sentences(unit).into_iter().find(|range| range.contains(&mention.start))?;
            unit.text.get(range)
        });
        Claim { cents: mention.cents, confidence, sentence: sentence.unwrap_or_default().trim().to_owned() }
    }

    /// No total and no remainder: one claim, one unlabelled sum of the lines above it, or one bare figure.
    fn weaker(&self, claims: &[i64]) -> Option<Claim> {
        let mention = |cents: i64| self.mentions.iter().rfind(|mention| mention.cents == cents);
        match claims {
            [] => {
                let figures: Vec<&Mention> = self.mentions.iter().collect();
                if let [only] = figures.as_slice()
                    && only.kind == Kind::Unlabelled
                {
                    let bare = Some(self.found(only, 0.5));
                    return bare.filter(|claim| claim.sentence.split_whitespace().count() <= LONGEST_BARE);
                }
                let last = figures.last().filter(|last| last.kind == Kind::Unlabelled)?;
                self.is_sum_of_lines_above(last).then(|| self.found(last, 0.8))
            }
            [one] if let Some(rest) = self.after_payments(*one) => Some(self.found(rest, 0.85)),
            [_] if self.leaves_a_second_claim() || self.has_later_payment() => None,
            [one] => mention(*one).map(|mention| self.found(mention, if mention.doubt { 0.6 } else { 0.85 })),
            several => self.sum_among(several).and_then(mention).map(|mention| self.found(mention, 0.8)),
        }
    }

    /// The figure without a label that is what payments leave of a claim: the table says so by its sums.
    fn after_payments(&self, claim: i64) -> Option<&Mention> {
        let paid: i64 = self
            .mentions
            .iter()
            .filter(|mention| mention.kind == Kind::Payment)
            .map(|mention| mention.cents)
            .sum();
        let at = self.place(claim)?;
        let rest = |mention: &&Mention| {
            mention.kind == Kind::Unlabelled && paid > 0 && mention.cents == claim - paid
        };
        self.mentions.iter().skip(at + 1).find(rest)
    }

    /// "Er schuldet 500 EUR aus dem Kauf, 200 EUR aus der Reparatur": what follows a claim without a word may be another one.
    fn leaves_a_second_claim(&self) -> bool {
        let next = |pair: &[Mention]| match pair {
            [first, second] => {
                let between = self
                    .units
                    .get(first.unit)
                    .and_then(|unit| unit.text.get(first.end..second.start))
                    .unwrap_or_default();
                let listed =
                    first.kind == Kind::Unlabelled && second.kind == Kind::Claim && LISTED.is_match(between);
                let follows = first.kind == Kind::Claim
                    && second.kind == Kind::Unlabelled
                    && !NEXT_SENTENCE.is_match(between);
                first.unit == second.unit && (follows || listed)
            }
            _ => false,
        };
        self.mentions.windows(2).any(next)
    }

    /// A payment that is told after the claim, and nothing says whether the claim already counts it.
    fn has_later_payment(&self) -> bool {
        let claim = self.mentions.iter().position(|mention| mention.kind == Kind::Claim);
        let later = self.mentions.iter().skip(claim.map_or(usize::MAX, |claim| claim + 1));
        later.filter(|mention| mention.kind == Kind::Payment).any(|payment| {
            let unit = self.units.get(payment.unit).map_or("", |unit| unit.text.as_str());
            CAME_IN.is_match(&self.found(payment, 0.0).sentence) && !COUNTED.is_match(unit)
        })
    }

    fn is_sum_of_lines_above(&self, last: &Mention) -> bool {
        let above: Vec<&Mention> = self.mentions.iter().filter(|mention| mention.unit < last.unit).collect();
        let signed =
            |mention: &Mention| if mention.kind == Kind::Payment { -mention.cents } else { mention.cents };
        above.len() >= 2
            && above.iter().all(|mention| mention.kind != Kind::Other)
            && above.iter().map(|mention| signed(mention)).sum::<i64>() == last.cents
    }

    /// Whether the lines above a total add up to it, whatever each is called.
    fn lines_come_to(&self, total: i64) -> bool {
        let last = self.mentions.iter().rfind(|mention| mention.cents == total);
        last.is_some_and(|last| self.is_sum_of_lines_above(last))
    }

    /// The one value that is the sum of all others, of which there are at least two.
    fn sum_among(&self, values: &[i64]) -> Option<i64> {
        let all: i64 = values.iter().sum();
        values.iter().copied().find(|value| values.len() >= 3 && all - value == *value)
    }

    /// A total below a claim is the total of something else, unless a payment lies between them.
    fn total_over(&self, total: i64, claims: &[i64]) -> Option<i64> {
        claims.iter().all(|claim| *claim <= total || self.is_explained(*claim, total)).then_some(total)
    }

    /// Whether payments and credits in the mail lead from `before` to `after`.
    fn is_explained(&self, before: i64, after: i64) -> bool {
        let paid: Vec<i64> =
            self.mentions.iter().filter(|mention| mention.kind == Kind::Payment).map(|m| m.cents).collect();
        before > after && (paid.contains(&(before - after)) || paid.iter().sum::<i64>() == before - after)
    }

    fn rest_of(&self, total: i64, rests: &[i64]) -> Option<i64> {
        match rests {
            [rest] if *rest == total => Some(total),
            // What remains after payments; without one in the mail only a word such as "Restforderung" says so.
            [rest] if *rest < total => {
                let is_later = self.is_explained(total, *rest) || self.says_remaining(*rest);
                is_later.then_some(*rest).or_else(|| self.lines_come_to(total).then_some(total))
            }
            several => {
                let others: i64 = several.iter().filter(|rest| **rest != total).sum();
                (others == total && several.len() >= 2).then_some(total)
            }
        }
    }

    fn says_remaining(&self, cents: i64) -> bool {
        self.mentions.iter().filter(|mention| mention.cents == cents && mention.kind == Kind::Rest).any(
            |mention| {
                let before = self
                    .units
                    .get(mention.unit)
                    .and_then(|unit| unit.text.get(..mention.start))
                    .unwrap_or_default();
                REMAINING.is_match(before)
            },
        )
    }

    fn settle(&self, totals: &[i64], rests: &[i64]) -> Option<i64> {
        if let Some(sum) = self.sum_among(totals) {
            return Some(sum).filter(|sum| rests.iter().all(|rest| rest == sum));
        }
        self.last_of(totals).filter(|one| rests.iter().all(|rest| rest == one))
    }

    /// The one value that all others lead to, by the payments and additions that the mail lists.
    fn last_of(&self, values: &[i64]) -> Option<i64> {
        let leads = |before: i64, after: i64| {
            self.is_before(before, after)
                && (self.is_explained(before, after) || self.builds_up(before, after))
        };
        let last = |after: &i64| values.iter().all(|before| before == after || leads(*before, *after));
        values.iter().copied().find(|after| values.len() <= MOST_SUMS && last(after))
    }

    fn place(&self, cents: i64) -> Option<usize> {
        self.mentions.iter().position(|mention| mention.cents == cents && labels::is_claim(mention.kind))
    }

    fn is_before(&self, before: i64, after: i64) -> bool {
        matches!((self.place(before), self.place(after)), (Some(first), Some(second)) if first < second)
    }

    /// "Saldo 100, Zinsen 5, Zahlbetrag 105": what is listed between two sums makes the difference.
    fn builds_up(&self, before: i64, after: i64) -> bool {
        let (Some(first), Some(second)) = (self.place(before), self.place(after)) else { return false };
        let between = self.mentions.get(first + 1..second).unwrap_or_default();
        let listed: i64 = between
            .iter()
            .map(|mention| match mention.kind {
                Kind::Payment => -mention.cents,
                Kind::Part | Kind::Unlabelled => mention.cents,
                Kind::Total | Kind::Rest | Kind::Claim | Kind::Other => 0,
            })
            .sum();
        listed != 0 && before + listed == after
    }
}

/// "Rechnung 1 über 850 EUR und Rechnung 2 über": the same predicate follows for both.
static LISTED: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^\)?,?\s*(?:und|sowie|and)\s(?:[^.;,]|\.[0-9]){0,80}$"));
static NEXT_SENTENCE: LazyLock<Regex> = LazyLock::new(|| pattern(r"[.!?]\s+\p{Lu}"));
static CAME_IN: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:hierauf|darauf|wurden?|zahlte[nt]?|überwies(?:en)?|erhalten|erhielten|\p{L}*zahlung(?:en)?|eingegangen|gingen|geleistet|received|paid)\b",
    )
});
static COUNTED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:berücksichtig\p{L}*|beruecksichtig\p{L}*|abgezogen|verrechnet|angerechnet|enthalten|einbezogen|eingerechnet|gutgeschrieben|gutgebracht|nach (?:abzug|verrechnung)|included|deducted|taken into account|already)\b",
    )
});
static REMAINING: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:rest\p{L}+|\p{L}*bleib\p{L}*|verblieben\p{L}*|remain\p{L}*|nach (?:abzug|zahlung|verrechnung|gutschrift|anrechnung)|valutier\p{L}*|noch)\b[^.]*$",
    )
});

fn distinct(values: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut values: Vec<i64> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}
