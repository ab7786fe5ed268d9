//! What a model's answer is worth: shape, bounds, and whether the mail itself says so. Pure.
//!
//! An answer is untrusted: the model may have made it up, or the mail may have talked it into it. An answer of another shape is none.
//! A value that the mail does not contain becomes null, and a person decides; nothing is repaired, completed or guessed.

use crate::{
    extraction::{
        ExtractedEntities, Intent, Mail,
        rules::{self, folded},
    },
    mail_text,
};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use shared::money::Amount;
use std::{collections::HashSet, sync::LazyLock};
use unicode_normalization::UnicodeNormalization as _;

/// Characters of a name.
const NAME_LIMIT: usize = 120;
/// Characters of a case number.
const AKTENZEICHEN_LIMIT: usize = 40;
/// Characters of one of the creditor's numbers.
const NUMBER_LIMIT: usize = 60;
/// A mail about one matter has a handful of numbers; more come from a list.
const MOST_NUMBERS: usize = 20;
/// Bytes of an amount as text, such as "EUR 999.999.999.999,99".
const LONGEST_AMOUNT: usize = 40;
/// Below what the write guard lets pass.
const UNSURE: f64 = 0.5;
/// Fewer digits are no case number.
const FEWEST_DIGITS: usize = 3;
/// Braces at which an object is looked for in an answer of words.
const MOST_STARTS: usize = 200;

/// An answer as the model gave it.
#[derive(Clone)]
pub enum Answer {
    /// Words, with the object somewhere in them.
    Text(String),
    /// The object.
    Object(Value),
}

/// A mail's content: a `Debug` print shows nothing of it.
impl std::fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Answer(..)")
    }
}

/// The form that was asked for. What is missing is null where null is allowed; what else is there does not count.
#[derive(Deserialize)]
struct Form {
    is_creditor_reply: bool,
    intent: Intent,
    client_name: Option<String>,
    client_aktenzeichen: Option<String>,
    creditor_name: Option<String>,
    /// Text or number; read digit by digit.
    #[serde(default)]
    debt_amount: Value,
    reference_numbers: Option<Vec<String>>,
    confidence: f64,
    summary: Option<String>,
}

/// The entities that an answer and the mail agree on.
pub(super) fn entities(answer: &Answer, mail: &Mail<'_>) -> Result<ExtractedEntities, &'static str> {
    let form = match answer {
        Answer::Object(object) => read_form(object.clone()).ok_or("the answer ignores the form")?,
        Answer::Text(text) => form_in(text)?,
    };
    if !(0.0..=1.0).contains(&form.confidence) {
        return Err("the answer ignores the form: confidence is not between 0 and 1");
    }
    if !form.is_creditor_reply {
        return Ok(rules::nothing(form.intent, form.confidence));
    }
    let subject = mail_text::read(Some(mail.subject), None).current;
    let written = Written::new(&subject, mail);
    let aktenzeichen = form.client_aktenzeichen.and_then(|number| {
        written.number(&number, AKTENZEICHEN_LIMIT, &written.everything).map(|(_, number)| number)
    });
    let amounts = || rules::written_amounts(&subject, &mail.text.current);
    // Whoever gives orders to the reader may have been obeyed: where there is a choice, a person makes it.
    let is_suspicious = rules::orders_its_reader(&subject, &mail.text.current)
        && amounts().iter().any(|amount| Some(amount) != amounts().first());
    Ok(ExtractedEntities {
        is_creditor_reply: true,
        intent: form.intent,
        client_name: form.client_name.and_then(|name| written.name(&name)),
        creditor_name: form.creditor_name.and_then(|name| written.name(&name)),
        debt_amount: amount_among(&form.debt_amount, amounts),
        reference_numbers: written
            .numbers(&form.reference_numbers.unwrap_or_default(), aktenzeichen.as_deref()),
        confidence: if is_suspicious { form.confidence.min(UNSURE) } else { form.confidence },
        summary: form.summary.and_then(|text| rules::summary(&plain(&text))),
        client_aktenzeichen: aktenzeichen,
    })
}

fn read_form(object: Value) -> Option<Form> {
    if object.is_object() { serde_json::from_value(object).ok() } else { None }
}

/// The one object of our form in a text: bare, in a code fence, or behind other words. Two that differ are none.
fn form_in(text: &str) -> Result<Form, &'static str> {
    let mut found: Option<Value> = None;
    let mut rest = text;
    for _ in 0..MOST_STARTS {
        let Some(start) = rest.find('{') else { break };
        rest = rest.get(start..).unwrap_or_default();
        let mut objects = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let Some(Ok(object)) = objects.next() else {
            rest = rest.get(1..).unwrap_or_default();
            continue;
        };
        rest = rest.get(objects.byte_offset()..).unwrap_or_default();
        if object.get("is_creditor_reply").is_none() {
            continue;
        }
        if found.as_ref().is_some_and(|other| *other != object) {
            return Err("there is more than one answer");
        }
        found = Some(object);
    }
    let found = found.ok_or("the answer is not the JSON that was asked for")?;
    read_form(found).ok_or("the answer ignores the form")
}

/// The amount that an answer names, if the mail writes it. In doubt about the point ("2.500"), the mail decides; if it allows both
/// readings, there is none.
fn amount_among(named: &Value, written: impl Fn() -> Vec<Amount>) -> Option<Amount> {
    let digits = match named {
        // The digits as sent: numbers are kept as text (`arbitrary_precision`).
        Value::Number(number) => vec![number.to_string().parse().ok()?],
        Value::String(text) => {
            let text = text.trim();
            if text.len() > LONGEST_AMOUNT {
                return None;
            }
            let mut readings: Vec<Amount> = text.parse().ok().into_iter().collect();
            readings.extend(rules::written_amounts("", &format!("{text} EUR")));
            readings.extend(rules::written_amounts("", text));
            readings
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    if digits.is_empty() {
        return None;
    }
    let written = written();
    let mut agreed: Vec<Amount> = digits.into_iter().filter(|amount| written.contains(amount)).collect();
    agreed.sort_unstable();
    agreed.dedup();
    if let [only] = agreed.as_slice() { Some(*only) } else { None }
}

/// The mail's own words and numbers.
struct Written {
    /// Subject, new text.
    new: String,
    /// With the history and the sender's name: whom the mail is about may stand there.
    everything: String,
    words: HashSet<String>,
}

impl Written {
    fn new(subject: &str, mail: &Mail<'_>) -> Written {
        let new = plain(&format!("{subject} \n {}", mail.text.current));
        let name = mail.from_name.unwrap_or_default();
        let everything = format!("{new} {} {}", plain(&mail.text.history), plain(name));
        let words = words(&everything).collect();
        Written { new, everything, words }
    }

    /// A name all of whose words are in the mail.
    fn name(&self, name: &str) -> Option<String> {
        let name = plain(name);
        let fits = !name.is_empty() && name.chars().count() <= NAME_LIMIT && words(&name).next().is_some();
        (fits && words(&name).all(|word| self.words.contains(&word))).then_some(name)
    }

    /// A number that is in the text as it is, and not as a part of a longer one; with the place where it first is.
    fn number(&self, number: &str, limit: usize, text: &str) -> Option<(usize, String)> {
        let number = plain(number);
        let digits = number.bytes().filter(u8::is_ascii_digit).count();
        if digits < FEWEST_DIGITS || number.chars().count() > limit {
            return None;
        }
        let is_whole = |at: &usize| {
            let before = text.get(text.floor_char_boundary(at.saturating_sub(8))..*at).unwrap_or_default();
            let after = text.get(at + number.len()..).unwrap_or_default();
            !PART_BEFORE.is_match(before) && !PART_AFTER.is_match(after)
        };
        let at = text.match_indices(&number).map(|(at, _)| at).find(is_whole)?;
        Some((at, number))
    }

    /// Those of the numbers that are in the new text, in order of appearance and each once; the firm's own is none of the creditor's.
    fn numbers(&self, named: &[String], own: Option<&str>) -> Vec<String> {
        let named = named.iter().take(MOST_NUMBERS);
        let mut found: Vec<_> =
            named.filter_map(|number| self.number(number, NUMBER_LIMIT, &self.new)).collect();
        found.retain(|(_, number)| own != Some(number.as_str()));
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|(_, number)| number).collect()
    }
}

/// What stands before a number that is only the end of a longer one: "118" in "2024/118", but not in "Az.118".
static PART_BEFORE: LazyLock<Regex> =
    LazyLock::new(|| rules::pattern(r"(?:[\p{L}\p{N}]|[\p{L}\p{N}][-/_]|\p{N}\.)$"));
/// And after its beginning: "2024" in "2024/118". Letters behind a mark are a dictation sign.
static PART_AFTER: LazyLock<Regex> = LazyLock::new(|| rules::pattern(r"^(?:[\p{L}\p{N}]|[-/_.]\p{N})"));

/// One line of visible characters in NFC.
fn plain(text: &str) -> String {
    let visible: String = text.nfc().map(|c| if c.is_control() { ' ' } else { c }).collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(folded)
}

#[cfg(test)]
mod tests;
