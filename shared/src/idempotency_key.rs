//! `generate_idempotency_key`: the key of a debt update, equal to the one that the replaced Python service computes.
//!
//! Owns the Python-equal JSON (`json.dumps(payload, sort_keys=True)`); knows nothing of tables.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// `{operation}:{aggregate_id}:{first 16 hex digits of SHA-256 of the payload's JSON}`.
#[must_use]
pub fn generate_idempotency_key(operation: &str, aggregate_id: &str, payload: &Value) -> String {
    format!("{operation}:{aggregate_id}:{}", payload_hash(payload))
}

/// The last part of the key alone, for where the aggregate's id is not known yet.
#[must_use]
pub fn payload_hash(payload: &Value) -> String {
    let digest = Sha256::digest(python_json(payload).as_bytes());
    digest.iter().take(8).fold(String::with_capacity(16), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What Python's `json.dumps(payload, sort_keys=True)` writes: ", " and ": " between, everything but ASCII escaped.
#[must_use]
pub fn python_json(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(yes) => text.push_str(if *yes { "true" } else { "false" }),
        Value::Number(number) => write_number(text, number.as_str()),
        Value::String(string) => write_string(text, string),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                write_value(text, item);
            }
            text.push(']');
        }
        Value::Object(members) => {
            // Python sorts by code point, which is the order of UTF-8 bytes.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| name.as_bytes());
            text.push('{');
            for (index, (name, member)) in members.into_iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                write_string(text, name);
                text.push_str(": ");
                write_value(text, member);
            }
            text.push('}');
        }
    }
}

fn write_string(text: &mut String, string: &str) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            ' '..='~' => text.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text.push('"');
}

/// Python keeps an integer's digits and writes a float as its shortest repr: fixed from 1e-4 to below 1e16, else with a
/// two-digit exponent; what overflows is `Infinity`.
fn write_number(text: &mut String, digits: &str) {
    if !digits.contains(['.', 'e', 'E']) {
        text.push_str(if digits == "-0" { "0" } else { digits });
        return;
    }
    let value: f64 = digits.parse().unwrap_or(f64::NAN);
    if value.is_infinite() {
        text.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    } else if value != 0.0 && !(1e-4..1e16).contains(&value.abs()) {
        // Rust writes the shortest digits too: 1.5e-7; Python pads the exponent and signs it: 1.5e-07.
        let shortest = format!("{value:e}");
        let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(text, "{mantissa}e{sign}{:02}", exponent.abs());
    } else {
        let _ = write!(text, "{value:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    /// Python itself is the judge; it is a prerequisite of the project's development script.
    #[test]
    fn the_json_is_what_python_writes() {
        let samples = [
            r#"{"client_name": "Mößbauer, Jürgen", "creditor_email": "a@b.example", "amount": "1027.55"}"#,
            r#"{"b":1,"a":[1.0,-0,-0.0,1e3,1.5e-7,1e16,123456789012345678901234567890,0.1,1E400,-1e400,1e15,9999999999999998.0],"é":null,"z":true}"#,
            r#""\u0000\b\f\n\r\t\"\\\/~\u007f\u00e4\u2028\ud83d\ude00""#,
            r#"[[], {}, {"":""}, 1.7976931348623157e308, 5e-324, 0.0001, 0.00001, 100000.0]"#,
            r#"{"\uffff": 1, "\ud83d\ude00": 2, "a": 3}"#,
        ];
        for sample in samples {
            let mut python = Command::new("python3")
                .args([
                    "-c",
                    "import json,sys; sys.stdout.write(json.dumps(json.load(sys.stdin), sort_keys=True))",
                ])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            python.stdin.take().unwrap().write_all(sample.as_bytes()).unwrap();
            let expected = String::from_utf8(python.wait_with_output().unwrap().stdout).unwrap();
            assert_eq!(python_json(&serde_json::from_str(sample).unwrap()), expected);
        }
    }

    #[test]
    fn the_key_has_the_form_operation_aggregate_hash() {
        let payload = serde_json::json!({"client_name": "Mößbauer, Jürgen", "amount": "1027.55"});
        let key = generate_idempotency_key("creditor_debt_update", "17", &payload);
        assert_eq!(
            key.rsplit_once(':').map(|(front, hash)| (front, hash.len())),
            Some(("creditor_debt_update:17", 16))
        );
        assert_eq!(key, generate_idempotency_key("creditor_debt_update", "17", &payload));
    }
}
