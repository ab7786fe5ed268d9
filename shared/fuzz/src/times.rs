//! Times as senders write them.

use crate::{bodies::in_bounds, input::arrival};
use ingest::received_at::{ReceivedAt, received_at as read};
use serde_json::Value;

/// A time is between 2015 and now, or the time of arrival with a note; what was read is read back from its usual form.
pub(crate) fn received_at(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let number: Option<Value> = serde_json::from_str(&text).ok().filter(Value::is_number);
    for value in [Some(Value::String(text.into_owned())), number].into_iter().flatten() {
        let time = read(Some(&value), arrival());
        in_bounds(time.time);
        assert_eq!(time, read(Some(&value), arrival()), "the same text, the same time");
        if time.note.is_some() {
            assert_eq!(time.time, arrival(), "else the time of arrival");
        }
        let again = read(Some(&Value::String(time.time.to_string())), arrival());
        assert_eq!(again, ReceivedAt { time: time.time, note: None }, "{} is read back", time.time);
    }
}
