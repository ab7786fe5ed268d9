//! JSON as a stranger sends it.

use ingest::{json_body, problem::Problem};
use serde_json::{Map, Value};

/// Errors of one answer, and bytes of all places that it names: a hostile body must not make a long answer.
const MOST_ERRORS: usize = 20;
const MOST_BYTES: usize = 4096 + 127 * 202;

/// A body is read as what it says, or refused with the places that are wrong: nested too deeply, and names that occur twice, too.
pub(crate) fn json(data: &[u8]) {
    let plain: Option<Map<String, Value>> =
        std::str::from_utf8(data).ok().and_then(|text| serde_json::from_str(text).ok());
    // In JSON each member has one colon outside of its texts; of a name that occurs twice, only one member is left.
    let is_whole = plain.as_ref().is_some_and(|map| members_of(map) == colons(data));
    match json_body::parse(data) {
        Ok(read) => {
            assert!(is_whole, "a name occurs twice, or it is no object");
            assert!(depth(&read.clone().into()) <= 127, "deeper than what is promised");
            assert_eq!(Some(read), plain, "read as what it says");
        }
        Err(Problem::InvalidPayload(errors)) => {
            assert!(!is_whole, "a sound body is refused: {errors:?}");
            assert!((1..=MOST_ERRORS).contains(&errors.len()), "{} errors", errors.len());
            assert!(errors.iter().all(|error| is_pointer(&error.pointer)), "{errors:?}");
            let bytes: usize = errors.iter().map(|error| error.pointer.len()).sum();
            assert!(bytes <= MOST_BYTES, "{bytes} bytes of pointers");
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// RFC 6901.
pub(crate) fn is_pointer(text: &str) -> bool {
    let is_escape = |place: usize| text[place + 1..].starts_with(['0', '1']);
    (text.is_empty() || text.starts_with('/')) && text.match_indices('~').all(|(place, _)| is_escape(place))
}

fn colons(json: &[u8]) -> usize {
    let (mut count, mut in_text, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b':' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

fn members_of(map: &Map<String, Value>) -> usize {
    map.values().map(|value| 1 + members(value)).sum()
}

fn members(value: &Value) -> usize {
    match value {
        Value::Object(map) => members_of(map),
        Value::Array(items) => items.iter().map(members).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Object(map) => map.values().map(depth).max(),
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return 0,
    };
    1 + below.unwrap_or(0)
}
