//! How a target cuts its bytes.

use hyper::{HeaderMap, header::HeaderValue};
use jiff::Timestamp;
use std::borrow::Cow;

/// Between the fields of an input: no byte of a UTF-8 text.
const BETWEEN: u8 = 0xff;

/// The first byte, which says what to do, and the rest.
pub(crate) fn mode(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(mode, rest)| (*mode, rest))
}

/// The fields; missing ones are empty, the last one holds what is left.
pub(crate) fn fields<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts = data.splitn(N, |byte| *byte == BETWEEN);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// The fields as texts.
pub(crate) fn texts<const N: usize>(data: &[u8]) -> [Cow<'_, str>; N] {
    fields(data).map(String::from_utf8_lossy)
}

/// The headers whose values a request can carry; an empty one is not there.
pub(crate) fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        if let Ok(value) = HeaderValue::from_bytes(value)
            && !value.is_empty()
        {
            map.append(*name, value);
        }
    }
    map
}

/// When every request arrives.
pub(crate) fn arrival() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}
