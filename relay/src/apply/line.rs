//! One line of `relay apply`: the body of `POST /v1/debt-updates`, with the bounds that `ingest` has for it. Pure.
//!
//! Where `ingest` would guess, a line is refused: nobody looks at a note here, and the time of a line decides over amounts.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use shared::{
    message::{CreditorDebtUpdate, EmailId, Origin, Revision, Stamp},
    money::{Amount, AmountError},
};

/// Characters of a person's or firm's name.
const NAME: usize = 200;
/// Characters of a case or reference number.
const NUMBER: usize = 100;
/// Reference numbers.
const NUMBERS: usize = 20;
/// Characters of the summary.
const RESPONSE: usize = 2000;
/// Characters of a mailbox, name included, and of an address.
const MAILBOX: usize = 700;
const ADDRESS: usize = 320;
/// 2015-01-01T00:00:00Z: before the service existed.
const EARLIEST_SECOND: i64 = 1_420_070_400;

const NO_OBJECT: &str = "is not one JSON object";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    client_name: String,
    client_aktenzeichen: Option<String>,
    creditor_email: String,
    creditor_name: Option<String>,
    new_debt_amount: Value,
    response_text: Option<String>,
    reference_numbers: Option<Vec<String>>,
    extraction_confidence: Option<f64>,
    received_at: Option<Value>,
    #[serde(rename = "ticket_id")]
    _ticket_id: Option<Value>,
}

/// The update of a line; `now` = its time where it names none.
///
/// # Errors
/// What is wrong with it; never a value of it.
pub fn parse(line: &str, now: Timestamp) -> Result<CreditorDebtUpdate, String> {
    // serde would take a list of the fields' values too.
    if !line.trim_start().starts_with('{') {
        return Err(NO_OBJECT.into());
    }
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let body: Body = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| told(&error))?;
    deserializer.end().map_err(|_| "something follows the JSON object".to_owned())?;
    let (name_in_address, creditor_email) = mailbox(&text("creditor_email", &body.creditor_email, MAILBOX)?)
        .ok_or("creditor_email must be an e-mail address")?;
    let said = |name, value: Option<String>, most| {
        let value = value.map(|value| text(name, &value, most)).transpose()?;
        Ok::<_, String>(value.filter(|value| !value.is_empty()))
    };
    let client_name = said("client_name", Some(body.client_name), NAME)?;
    let creditor_name = said("creditor_name", body.creditor_name, NAME)?.or(name_in_address);
    let numbers = body.reference_numbers.unwrap_or_default();
    if numbers.len() > NUMBERS {
        return Err(format!("reference_numbers must have at most {NUMBERS} items"));
    }
    let numbers = numbers.iter().map(|number| text("reference_numbers", number, NUMBER));
    let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
    if body.extraction_confidence.is_some_and(|confidence| !(0.0..=1.0).contains(&confidence)) {
        return Err("extraction_confidence must be a number from 0 to 1 or null".into());
    }
    let received_at = received_at(body.received_at.as_ref(), now)?;
    let email_id = number_of(line);
    Ok(CreditorDebtUpdate {
        email_id,
        client_name: Some(client_name.ok_or("client_name must not be empty")?),
        client_aktenzeichen: said("client_aktenzeichen", body.client_aktenzeichen, NUMBER)?,
        creditor_email,
        creditor_name,
        new_debt_amount: Some(amount(&body.new_debt_amount)?),
        response_text: said("response_text", body.response_text, RESPONSE)?,
        reference_numbers: numbers.into_iter().filter(|number| !number.is_empty()).collect(),
        extraction_confidence: body.extraction_confidence,
        received_at,
        stamp: Stamp::new(received_at, email_id, Revision::FIRST).map_err(|error| error.to_string())?,
        origin: Origin::Mail,
        decided_by: None,
        client_id: None,
        entry_key: None,
        expected: None,
        hold: None,
    })
}

/// What takes the place of the mail's id in stamp and mark: below zero, so that it is none of a mail, and the same for the same line.
/// The stamp has room for 16 bits of it, the mark for all 48.
fn number_of(line: &str) -> EmailId {
    let hash = Sha256::digest(line.trim());
    -1 - hash.iter().take(6).fold(0, |number, byte| number << 8 | EmailId::from(*byte))
}

/// The category, and the field where serde knows it: its own words may quote a value.
fn told(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let inner = error.inner();
    let words = inner.to_string();
    let words = words.split(" at line ").next().unwrap_or_default();
    if inner.classify() != serde_json::error::Category::Data {
        return NO_OBJECT.into();
    }
    if words.starts_with("missing field") || words.starts_with("duplicate field") {
        return words.to_owned();
    }
    if words.starts_with("unknown field") {
        return words.split(", expected").next().unwrap_or_default().to_owned();
    }
    format!("{} is of the wrong kind", error.path())
}

fn text(name: &str, value: &str, most: usize) -> Result<String, String> {
    let value = value.replace('\0', "");
    match value.chars().nth(most) {
        Some(_) => Err(format!("{name} must have at most {most} characters")),
        None => Ok(value.trim().to_owned()),
    }
}

/// From its digits as written, whether string or number.
fn amount(value: &Value) -> Result<Amount, String> {
    let digits = match value {
        Value::String(text) => text.as_str(),
        Value::Number(number) => number.as_str(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            return Err("new_debt_amount must be a string or a number".into());
        }
    };
    digits.parse().map_err(|error: AmountError| format!("new_debt_amount {error}"))
}

/// With its zone, or Berlin time; or seconds or milliseconds since 1970.
fn received_at(value: Option<&Value>, now: Timestamp) -> Result<Timestamp, String> {
    let read = match value {
        None | Some(Value::Null) => return Ok(now),
        Some(Value::String(text)) => {
            let local = || {
                let local: DateTime = text.trim().parse().ok()?;
                TimeZone::get("Europe/Berlin").ok()?.to_timestamp(local).ok()
            };
            text.trim().parse().ok().or_else(local)
        }
        Some(Value::Number(number)) => number.as_i64().and_then(|number| match number {
            0..100_000_000_000 => Timestamp::from_second(number).ok(),
            _ => Timestamp::from_millisecond(number).ok(),
        }),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
    };
    let time = read.ok_or("received_at must be a time such as 2026-02-17T09:14:22Z")?;
    if time.as_second() < EARLIEST_SECOND || time > now {
        return Err("received_at must lie between 2015 and now".into());
    }
    Ok(time)
}

/// `address` or `Name <address>`; only its shape is tested.
fn mailbox(text: &str) -> Option<(Option<String>, String)> {
    let (name, address) = match text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
        Some((name, address)) => (name.trim().trim_matches('"').trim(), address.trim()),
        None => ("", text),
    };
    let (local, domain) = address.rsplit_once('@')?;
    let is_strange = |character: char| {
        character.is_whitespace()
            || character.is_control()
            || matches!(character, '<' | '>' | ',' | ';' | '"' | '@')
    };
    let is_plain = |part: &str| !part.is_empty() && !part.contains(is_strange);
    let has_empty_label = domain.split('.').any(str::is_empty);
    let is_address =
        is_plain(local) && is_plain(domain) && !has_empty_label && address.chars().count() <= ADDRESS;
    let name = Some(name).filter(|name| !name.is_empty() && name.chars().count() <= NAME);
    is_address.then(|| (name.map(str::to_owned), address.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: &str = "2026-06-01T12:00:00Z";

    fn with(field: &str, value: &str) -> Result<CreditorDebtUpdate, String> {
        let mut body = json!({"client_name": "Mößbauer, Jürgen", "creditor_email": "a@b.example", "new_debt_amount": "1027.55"});
        body[field] = serde_json::from_str(value).unwrap();
        parse(&body.to_string(), NOW.parse().unwrap())
    }

    #[test]
    fn a_line_is_an_update_with_a_number_of_its_own() {
        let line = r#"{"client_name": " Adler, Eva ", "client_aktenzeichen": "2024/118", "creditor_email": "Turmhaus <a@b.example>",
            "new_debt_amount": 12.5, "received_at": "2026-02-17T09:14:22", "reference_numbers": ["A", " "], "ticket_id": 5}"#;
        let update = parse(line, NOW.parse().unwrap()).unwrap();
        assert_eq!(
            (update.client_name.as_deref(), update.creditor_name.as_deref()),
            (Some("Adler, Eva"), Some("Turmhaus"))
        );
        assert_eq!(update.new_debt_amount, "12.50".parse().ok());
        assert_eq!(update.received_at.to_string(), "2026-02-17T08:14:22Z");
        assert_eq!(update.reference_numbers, ["A"]);
        assert!((-(1 << 48)..0).contains(&update.email_id));
        assert_eq!(parse(&format!("  {line}\n"), NOW.parse().unwrap()).unwrap(), update);
        let other = parse(&line.replace("12.5", "12.6"), NOW.parse().unwrap()).unwrap();
        assert_ne!(other.email_id, update.email_id);
        assert_eq!(with("received_at", "null").unwrap().received_at.to_string(), NOW);
        assert_eq!(
            with("received_at", "1771319662").unwrap().received_at.to_string(),
            "2026-02-17T09:14:22Z"
        );
    }

    #[test]
    fn a_wrong_line_is_refused_with_its_field_and_without_its_values() {
        for (field, value, told) in [
            ("client_name", "\" \"", "client_name must not be empty"),
            ("client_name", "5", "client_name is of the wrong kind"),
            ("creditor_email", "\"secret\"", "creditor_email must be an e-mail address"),
            (
                "new_debt_amount",
                "\"1.027,55\"",
                "new_debt_amount must be a plain decimal number such as 1234.56",
            ),
            ("new_debt_amount", "-1", "new_debt_amount must not be negative"),
            ("new_debt_amount", "1000000000000", "new_debt_amount must be at most 999999999999.99"),
            ("new_debt_amount", "1.001", "new_debt_amount must have at most two decimals"),
            ("new_debt_amount", "null", "new_debt_amount must be a string or a number"),
            ("extraction_confidence", "1.5", "extraction_confidence must be a number from 0 to 1 or null"),
            ("reference_numbers", "[1]", "reference_numbers[0] is of the wrong kind"),
            ("received_at", "\"yesterday\"", "received_at must be a time such as 2026-02-17T09:14:22Z"),
            ("received_at", "\"2027-01-01T00:00:00Z\"", "received_at must lie between 2015 and now"),
            ("typo", "1", "unknown field `typo`"),
        ] {
            assert_eq!(with(field, value).unwrap_err(), told, "{field}");
        }
        let now = || NOW.parse().unwrap();
        assert!(parse("{", now()).unwrap_err().contains("not one JSON object"));
        for wrong in [
            "[1]",
            "",
            "7",
            r#"["Adler, Eva", null, "a@b.example", null, "1", null, null, null, null, null]"#,
        ] {
            assert_eq!(parse(wrong, now()).unwrap_err(), NO_OBJECT);
        }
        assert_eq!(parse("{}", now()).unwrap_err(), "missing field `client_name`");
        let twice = r#"{"client_name": "a", "client_name": "b"}"#;
        assert_eq!(parse(twice, now()).unwrap_err(), "duplicate field `client_name`");
        assert!(with("response_text", &format!("\"{}\"", "x".repeat(2001))).unwrap_err().contains("2000"));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "\\PC*") {
            let _ = parse(&line, NOW.parse().unwrap());
        }
    }
}
