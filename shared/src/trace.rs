//! W3C trace context: the trace that runs from a request over its messages to what is said to MongoDB.
//!
//! Owns the text form of a traceparent. Nothing is exported: the ids stand in logs, in the outbox and in MongoDB's commands, and
//! that is where they are looked for.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    str::FromStr,
};

/// The name of a trace: 32 hex digits, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

/// A place in a trace, as the header traceparent and the column of the outbox have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: TraceId,
    span_id: u64,
}

/// A text that is no traceparent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent")]
pub struct TraceParentError;

impl TraceParent {
    /// The beginning of a trace that nobody has had before.
    #[must_use]
    pub fn root() -> TraceParent {
        let trace_id = u128::from(random()) << 64 | u128::from(random());
        TraceParent { trace_id: TraceId(trace_id), span_id: random() }
    }

    /// A new place in the same trace.
    #[must_use]
    pub fn child(self) -> TraceParent {
        TraceParent { span_id: random(), ..self }
    }

    /// The trace.
    #[must_use]
    pub fn trace_id(self) -> TraceId {
        self.trace_id
    }

    /// The place: 16 hex digits.
    #[must_use]
    pub fn span_id(self) -> String {
        format!("{:016x}", self.span_id)
    }
}

/// Not a secret; std seeds it from the operating system.
fn random() -> u64 {
    RandomState::new().build_hasher().finish().max(1) // all zero is no id
}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    /// Of a version to come only what version 00 knows; ff is none. The flags are the caller's affair.
    fn from_str(text: &str) -> Result<TraceParent, TraceParentError> {
        let read = || {
            let (known, rest) = text.split_at_checked(55)?;
            let mut parts = known.split('-');
            let mut part = |length: usize| {
                let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                parts.next().filter(|part| part.len() == length && part.bytes().all(hex))
            };
            let (version, trace_id, span_id, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
            let has_end = rest.is_empty() || (version != "00" && rest.starts_with('-'));
            let trace_id = u128::from_str_radix(trace_id, 16).ok().filter(|id| *id != 0)?;
            let span_id = u64::from_str_radix(span_id, 16).ok().filter(|id| *id != 0)?;
            (version != "ff" && has_end).then_some(TraceParent { trace_id: TraceId(trace_id), span_id })
        };
        read().ok_or(TraceParentError)
    }
}

/// Always sampled: every step is on record here, whatever the caller does about it.
impl fmt::Display for TraceParent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "00-{}-{:016x}-01", self.trace_id, self.span_id)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn only_what_the_standard_calls_a_traceparent_is_read() {
        let good = format!("00-{TRACE}-00f067aa0ba902b7-00");
        let read: TraceParent = good.parse().unwrap();
        assert_eq!(read.trace_id().to_string(), TRACE);
        assert_eq!(read.to_string(), format!("00-{TRACE}-00f067aa0ba902b7-01"), "sampling is our own affair");
        for later in ["-01", "-01-more"] {
            assert_eq!(format!("cc-{TRACE}-00f067aa0ba902b7{later}").parse(), Ok(read), "{later}");
        }
        let zeros = "0".repeat(32);
        for bad in [
            String::new(),
            "00".into(),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{zeros}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("cc-{TRACE}-00f067aa0ba902b7-01more"),
            format!("00-+{}-00f067aa0ba902b7-01", &TRACE[1..]),
            format!("00-{TRACE}-00f067aa0ba902b7-0"),
            format!("00_{TRACE}-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(TraceParentError), "{bad}");
        }
    }

    #[test]
    fn a_trace_that_is_made_can_be_read_and_its_places_differ() {
        let (root, other) = (TraceParent::root(), TraceParent::root());
        assert_eq!(root.to_string().parse(), Ok(root));
        assert!(root.trace_id() != other.trace_id() && root.span_id() != other.span_id());
        assert!(root.child().trace_id() == root.trace_id() && root.child().span_id() != root.span_id());
    }
}
