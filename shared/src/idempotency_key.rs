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
        return;
    }
    // The standard library breaks ties of the last digit upwards, Python and ryu to the even one.
    let mut buffer = ryu::Buffer::new();
    let shortest = buffer.format_finite(value);
    if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
        text.push_str(shortest);
        return;
    }
    // 1.5e-7 or 0.00001; Python writes 1.5e-07 and 1e-05.
    let (sign, shortest) = shortest.strip_prefix('-').map_or(("", shortest), |rest| ("-", rest));
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((shortest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    let zeros = i64::try_from(digits.len() - significant.len()).unwrap_or(0);
    let places = i64::try_from(whole.len()).unwrap_or(0) - 1 - zeros;
    let exponent = exponent.parse().unwrap_or(0_i64) + places;
    let (first, rest) = significant.trim_end_matches('0').split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let exponent_sign = if exponent < 0 { '-' } else { '+' };
    let _ = write!(text, "{sign}{first}{point}{rest}e{exponent_sign}{:02}", exponent.abs());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    /// What Python writes for each line. Python itself is the judge; it is a prerequisite of the project's development script.
    fn python(lines: &str) -> Vec<String> {
        let program =
            "import json,sys\nfor line in sys.stdin: print(json.dumps(json.loads(line), sort_keys=True))";
        let mut python = Command::new("python3")
            .args(["-c", program])
            .env("PYTHONIOENCODING", "utf-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut input, lines) = (python.stdin.take().unwrap(), lines.to_owned());
        let writing = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
        let output = String::from_utf8(python.wait_with_output().unwrap().stdout).unwrap();
        writing.join().unwrap();
        output.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_json_is_what_python_writes() {
        let samples = [
            r#"{"client_name": "Mößbauer, Jürgen", "creditor_email": "a@b.example", "amount": "1027.55"}"#,
            r#"{"b":1,"a":[1.0,-0,-0.0,1e3,1.5e-7,1e16,123456789012345678901234567890,0.1,1E400,-1e400,1e15,9999999999999998.0],"é":null,"z":true}"#,
            r#""\u0000\b\f\n\r\t\"\\\/~\u007f\u00e4\u2028\ud83d\ude00""#,
            r#"[-772812946484241.25, 772812946484240.75, 1.20e-5, 0.00012, -1e22, 1e100]"#,
            r#"[[], {}, {"":""}, 1.7976931348623157e308, 5e-324, 0.0001, 0.00001, 100000.0]"#,
            r#"{"\uffff": 1, "\ud83d\ude00": 2, "a": 3}"#,
        ];
        let ours = samples.map(|sample| python_json(&serde_json::from_str(sample).unwrap()));
        assert_eq!(python(&samples.join("\n")), ours);
    }

    /// Any JSON text, numbers in every form that JSON has.
    fn any_json() -> impl Strategy<Value = String> {
        let number = "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?";
        let text = || any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap());
        let leaf =
            prop_oneof![number.prop_map(|number| number), text(), "(true|false|null)".prop_map(|word| word)];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let member = (text(), inner.clone()).prop_map(|(name, value)| format!("{name}:{value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(|list| format!("[{}]", list.join(","))),
                prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(","))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20, max_shrink_iters: 50, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_json_is_what_python_writes(samples in prop::collection::vec(any_json(), 100)) {
            let ours: Vec<_> = samples.iter().map(|sample| python_json(&serde_json::from_str(sample).unwrap())).collect();
            for ((theirs, ours), sample) in python(&samples.join("\n")).into_iter().zip(ours).zip(samples) {
                prop_assert_eq!(ours, theirs, "{}", sample);
            }
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
