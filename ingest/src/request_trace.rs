//! What a request is called: its id in logs and answers, and its place in a trace, which its message carries on. Pure.
//!
//! Neither is taken from a stranger as it comes: an id has to look like one that proxies make, so that it cannot carry a name or an
//! address into the logs, and of a traceparent only the trace is kept.

use hyper::{HeaderMap, header::HeaderName};
use shared::trace::{TraceId, TraceParent};

/// The header of the request's id, in the request and in its answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestTrace {
    /// Hex digits and hyphens.
    pub request_id: String,
    /// Of its own, in the trace of the request's header where that has one.
    pub traceparent: TraceParent,
}

impl RequestTrace {
    /// The names of a request with these headers. A request without an id is called by its place in its trace.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> RequestTrace {
        let one = |name: HeaderName| {
            let mut values = headers.get_all(name).iter();
            values.next().filter(|_| values.next().is_none())?.to_str().ok()
        };
        let given: Option<TraceParent> =
            one(HeaderName::from_static("traceparent")).and_then(|text| text.trim().parse().ok());
        let traceparent = given.map_or_else(TraceParent::root, TraceParent::child);
        let request_id = one(REQUEST_ID).filter(|id| is_harmless(id)).map(str::to_owned);
        RequestTrace { request_id: request_id.unwrap_or_else(|| traceparent.span_id()), traceparent }
    }

    /// The trace.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.traceparent.trace_id()
    }
}

/// A UUID, or 16 to 64 hex digits.
fn is_harmless(id: &str) -> bool {
    (16..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn of(headers: &[(&'static str, &'static str)]) -> RequestTrace {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        RequestTrace::of(&map)
    }

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    #[test]
    fn a_strangers_trace_is_continued_at_a_place_of_our_own() {
        let made = of(&[("traceparent", GIVEN)]).traceparent;
        assert_eq!(made.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(made.span_id(), "00f067aa0ba902b7");
        let trace_id = |headers: &[(&'static str, &'static str)]| of(headers).trace_id();
        assert_ne!(trace_id(&[]), trace_id(&[]), "without one a trace begins");
        for odd in
            [&[("traceparent", "00-nonsense")] as &[_], &[("traceparent", GIVEN), ("traceparent", GIVEN)]]
        {
            assert_ne!(trace_id(odd), made.trace_id());
        }
    }

    #[test]
    fn a_request_keeps_an_id_that_can_hold_no_name_and_gets_one_otherwise() {
        for good in ["3f2b8c1a-9d4e-4f6a-8b7c-0d1e2f3a4b5c", "9F86D081884C7D659A2FEAA0C55AD015"] {
            assert_eq!(of(&[("x-request-id", good)]).request_id, good);
        }
        for odd in ["", "542902", "Eva Adler, Kreuzweg 7", "eva.adler@turmhaus.example", "0123456789abcdef;x"]
        {
            let made = of(&[("x-request-id", odd)]);
            assert_eq!(made.request_id, made.traceparent.span_id(), "{odd}");
        }
    }
}
