//! What a model's server says when it does not answer: whose failure it is, how long it wants to be left alone, what it calls it. Pure.

use crate::outcome::FailureClass;
use jiff::{Timestamp, fmt::rfc2822};
use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use serde_json::Value;
use std::{error::Error, time::Duration};

/// The longest pause that a server may ask for: after it one request shows whether it is still needed.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Whose failure an answer without success is. 529 is how an overloaded Anthropic answers.
pub(super) fn class(status: StatusCode) -> FailureClass {
    match status.as_u16() {
        408 | 425 | 429 | 500.. => FailureClass::SinkDown,
        // Not ours to be, not there, not paid, or somewhere else: a person has to look at the configuration.
        300..=399 | 401..=405 | 407 => FailureClass::SinkMisconfigured,
        _ => FailureClass::Permanent,
    }
}

/// Whether it was TLS that failed, and not the way to the server.
pub(super) fn is_tls(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<rustls::Error>() {
            return true;
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// The pause that a server asks for, in seconds or as a date; at most [`LONGEST_PAUSE`].
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let until = rfc2822::parse(text).ok()?.timestamp();
            u64::try_from(until.as_second().saturating_sub(now.as_second())).ok()?
        }
    };
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE)).filter(|pause| !pause.is_zero())
}

/// The server's name for the error, if it is a short identifier. Its words may repeat the mail and are never kept.
pub(super) fn error_code(body: &[u8]) -> Option<String> {
    let reply: Value = serde_json::from_slice(body).ok()?;
    let is_identifier = |text: &&str| {
        (2..=40).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let code = |name: &str| reply.get("error")?.get(name)?.as_str().filter(is_identifier);
    code("code").or_else(|| code("type")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn a_pause_is_read_in_seconds_and_as_a_date_and_is_capped() {
        let now: Timestamp = "2026-02-17T09:14:22Z".parse().unwrap();
        let read = |text: &'static str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            retry_after(&headers, now).map(|pause| pause.as_secs())
        };
        assert_eq!(read("7"), Some(7));
        assert_eq!(read("Tue, 17 Feb 2026 09:15:00 GMT"), Some(38));
        assert_eq!(read("99999999"), Some(3600));
        assert_eq!(read("Tue, 17 Feb 2026 09:14:00 GMT"), None, "over already");
        for text in ["0", "-1", "soon", "1.5", ""] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_status_says_whose_failure_it_is() {
        let of = |status: u16| class(StatusCode::from_u16(status).unwrap()).name();
        for status in [408, 429, 500, 502, 503, 529] {
            assert_eq!(of(status), "sink_down", "{status}");
        }
        for status in [302, 401, 402, 403, 404] {
            assert_eq!(of(status), "sink_misconfigured", "{status}");
        }
        for status in [400, 413, 422] {
            assert_eq!(of(status), "permanent", "{status}");
        }
    }

    #[test]
    fn only_an_identifier_is_kept_of_an_error() {
        let code = |body: &str| error_code(body.as_bytes());
        let both = r#"{"error":{"code":"context_length_exceeded","type":"invalid_request_error"}}"#;
        assert_eq!(code(both).as_deref(), Some("context_length_exceeded"));
        let words = r#"{"error":{"code":"Herr Adler schuldet 5 EUR","type":"invalid_request_error"}}"#;
        assert_eq!(code(words).as_deref(), Some("invalid_request_error"));
        for body in [r#"{"error":"model not found"}"#, r#"{"error":{"code":404}}"#, "no JSON", "[]"] {
            assert_eq!(code(body), None, "{body}");
        }
    }
}
