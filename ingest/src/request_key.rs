//! Which key a request has: a repeat of the same delivery has to come to the same one. Never random. Pure.

use crate::problem::Problem;
use hyper::HeaderMap;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Bytes of a key.
pub const MAX_KEY_BYTES: usize = 255;
const HEADER: &str = "idempotency-key";

/// The `Idempotency-Key` header. The draft of the IETF (draft-ietf-httpapi-idempotency-key-header-07) has it as a quoted
/// string, most clients send it bare: both are the same key.
///
/// # Errors
/// [`Problem::KeyMalformed`] unless it is there at most once, with 1 to 255 printable ASCII characters.
pub fn from_header(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| Problem::KeyMalformed)?.trim();
    let key =
        if text.starts_with('"') { unquoted(text).ok_or(Problem::KeyMalformed)? } else { text.to_owned() };
    let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let usable = !key.trim().is_empty() && key.len() <= MAX_KEY_BYTES && printable && values.next().is_none();
    if usable { Ok(Some(key)) } else { Err(Problem::KeyMalformed) }
}

/// The content of a structured-field string: `\"` and `\\` are its only escapes.
fn unquoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"').filter(|_| text.len() >= 2)?;
    let mut key = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return None,
            '\\' => key.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            _ => key.push(character),
        }
    }
    Some(key)
}

/// The key of a delivery, first match: the signed id, the header, the provider's own id, the content.
#[must_use]
pub fn of_delivery(
    signed_id: Option<&str>,
    header: Option<String>,
    own_id: Option<&str>,
    fingerprint: &[u8; 32],
) -> String {
    signed_id
        .map(str::to_owned)
        .or(header)
        .or_else(|| own_id.map(str::to_owned))
        .unwrap_or_else(|| hex(fingerprint))
}

/// SHA-256 of the raw body: what tells a repeat from a reused key.
#[must_use]
pub fn fingerprint(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn read(value: &[u8]) -> Result<Option<String>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(value).unwrap());
        from_header(&headers)
    }

    #[test]
    fn quoted_and_bare_are_the_same_key() {
        assert_eq!(read(b"abc-1"), Ok(Some("abc-1".into())));
        assert_eq!(read(b"\"abc-1\""), Ok(Some("abc-1".into())));
        assert_eq!(read(br#""a\"b\\""#), Ok(Some("a\"b\\".into())));
        assert_eq!(read("x".repeat(255).as_bytes()), Ok(Some("x".repeat(255))));
        assert_eq!(read(format!("\"{}\"", "x".repeat(255)).as_bytes()), Ok(Some("x".repeat(255))));
        assert_eq!(from_header(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "x".repeat(256);
        for value in [
            b"".as_slice(),
            b"\"\"",
            b"\" \"",
            b"\"",
            b"\"a",
            b"\"a\"b\"",
            br#""a\x""#,
            "ä".as_bytes(),
            b"a\tb",
            long.as_bytes(),
        ] {
            assert_eq!(read(value), Err(Problem::KeyMalformed), "{value:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append(HEADER, HeaderValue::from_static("a"));
        twice.append(HEADER, HeaderValue::from_static("a"));
        assert_eq!(from_header(&twice), Err(Problem::KeyMalformed));
    }

    #[test]
    fn the_signed_id_goes_first_and_the_content_last() {
        let print = fingerprint(b"");
        let header = || Some("header".to_owned());
        assert_eq!(of_delivery(Some("signed"), header(), Some("own"), &print), "signed");
        assert_eq!(of_delivery(None, header(), Some("own"), &print), "header");
        assert_eq!(of_delivery(None, None, Some("own"), &print), "own");
        assert_eq!(
            of_delivery(None, None, None, &print),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
