//! Every failure that a client can see, as problem details (RFC 9457, `application/problem+json`).
//!
//! Owns status, type, title and detail of each. The texts tell the sender what to do; they repeat nothing of the request but
//! the names of its fields, and nothing of our insides.

use hyper::header::{ALLOW, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json;
use shared::http::{Reply, reply};

/// One field that is wrong, found by its JSON pointer (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Where: `/attachments/0/url`; empty for the document as a whole.
    pub pointer: String,
    /// What is wrong with it, without its value.
    pub detail: String,
}

/// Why a request gets no 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The body cannot be used as it is; sending it again changes nothing.
    InvalidPayload(Vec<FieldError>),
    /// An authentic event that is not an inbound mail.
    UnsupportedEvent,
    /// The endpoint requires the `Idempotency-Key` header.
    KeyMissing,
    /// The `Idempotency-Key` header is no key.
    KeyMalformed,
    /// No signature at all.
    SignatureMissing,
    /// A signature that none of the secrets made.
    SignatureInvalid,
    /// An authentic request outside the time window: an old recording, or a clock that is off.
    SignatureStale,
    /// No bearer token, or one that nobody knows.
    TokenInvalid,
    /// A webhook source that does not exist or has no secret.
    UnknownSource,
    /// No such path, or an endpoint that is switched off.
    UnknownPath,
    /// No such email.
    UnknownEmail,
    /// The path exists, the method does not; the methods that do.
    MethodNotAllowed(&'static str),
    /// The body did not arrive in time.
    BodyTooSlow,
    /// Another request with the same key has not ended yet.
    RivalInFlight,
    /// The body is larger than this number of bytes.
    PayloadTooLarge(usize),
    /// Not `application/json`.
    UnsupportedMediaType,
    /// The key or the provider's id belongs to a request with other content.
    KeyReused,
    /// The event neither carries the mail nor has an id by which it could be fetched.
    MailWithoutBody,
    /// More work than there is room for.
    Overloaded,
    /// Postgres is away; nothing was stored.
    Unavailable,
    /// A commit was begun and nobody knows whether it happened; the key makes sending again safe. To a client the same problem
    /// as [`Problem::Unavailable`], with another detail.
    OutcomeUnknown,
    /// A bug.
    Internal,
}

impl Problem {
    /// Every problem; where it carries something, with an example.
    pub const ALL: [Problem; 22] = [
        Problem::InvalidPayload(Vec::new()),
        Problem::UnsupportedEvent,
        Problem::KeyMissing,
        Problem::KeyMalformed,
        Problem::SignatureMissing,
        Problem::SignatureInvalid,
        Problem::SignatureStale,
        Problem::TokenInvalid,
        Problem::UnknownSource,
        Problem::UnknownPath,
        Problem::UnknownEmail,
        Problem::MethodNotAllowed("GET, HEAD"),
        Problem::BodyTooSlow,
        Problem::RivalInFlight,
        Problem::PayloadTooLarge(1 << 20),
        Problem::UnsupportedMediaType,
        Problem::KeyReused,
        Problem::MailWithoutBody,
        Problem::Overloaded,
        Problem::Unavailable,
        Problem::OutcomeUnknown,
        Problem::Internal,
    ];

    /// A body with one wrong field.
    #[must_use]
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Problem {
        Problem::InvalidPayload(vec![FieldError { pointer: pointer.into(), detail: detail.into() }])
    }

    /// The name: the last part of the type, and the outcome in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.row().1
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.row().0
    }

    /// The title: the same for every occurrence.
    #[must_use]
    pub fn title(&self) -> &'static str {
        self.row().2
    }

    /// Status, name, title.
    fn row(&self) -> (u16, &'static str, &'static str) {
        match self {
            Problem::InvalidPayload(_) => (400, "invalid-payload", "The body cannot be used"),
            Problem::UnsupportedEvent => (400, "unsupported-event", "Not an inbound mail"),
            Problem::KeyMissing => (400, "idempotency-key-missing", "Idempotency-Key is missing"),
            Problem::KeyMalformed => (400, "idempotency-key-malformed", "Idempotency-Key is not a key"),
            Problem::SignatureMissing => (401, "signature-missing", "The signature is missing"),
            Problem::SignatureInvalid => (401, "signature-invalid", "The signature is wrong"),
            Problem::SignatureStale => {
                (401, "timestamp-out-of-window", "The signature is too old or too new")
            }
            Problem::TokenInvalid => (401, "token-invalid", "A valid bearer token is required"),
            Problem::UnknownSource => (404, "unknown-source", "Unknown source"),
            Problem::UnknownPath => (404, "not-found", "Nothing here"),
            Problem::UnknownEmail => (404, "unknown-email", "Unknown email"),
            Problem::MethodNotAllowed(_) => (405, "method-not-allowed", "Method not allowed"),
            Problem::BodyTooSlow => (408, "body-too-slow", "The body did not arrive in time"),
            Problem::RivalInFlight => (409, "idempotency-in-flight", "The same request is being processed"),
            Problem::PayloadTooLarge(_) => (413, "payload-too-large", "The body is too large"),
            Problem::UnsupportedMediaType => (415, "unsupported-media-type", "Only application/json"),
            Problem::KeyReused => (422, "idempotency-key-reused", "The key belongs to other content"),
            Problem::MailWithoutBody => (503, "mail-without-body", "The mail's body is not in the event"),
            Problem::Overloaded => (503, "overloaded", "Too much at once"),
            Problem::Unavailable | Problem::OutcomeUnknown => {
                (503, "unavailable", "The database is not available")
            }
            Problem::Internal => (500, "internal", "An error on our side"),
        }
    }

    /// What happened and what to do.
    #[must_use]
    pub fn detail(&self) -> &'static str {
        match self {
            Problem::InvalidPayload(_) => "See errors; sending the same body again changes nothing.",
            Problem::UnsupportedEvent => {
                "Only events of type email.received are taken; subscribe the endpoint to that type alone."
            }
            Problem::KeyMissing => "This endpoint requires the header Idempotency-Key.",
            Problem::KeyMalformed => {
                "Idempotency-Key must be 1 to 255 printable ASCII characters, bare or in double quotes."
            }
            Problem::SignatureMissing => "The request carries no complete set of signature headers.",
            Problem::SignatureInvalid => "No configured secret made this signature over these bytes.",
            Problem::SignatureStale => "The signed timestamp is more than 300 seconds away from our clock.",
            Problem::TokenInvalid => "Send Authorization: Bearer with a token of this service.",
            Problem::UnknownSource => "There is no such webhook source, or it has no secret configured.",
            Problem::UnknownPath => "There is no such path, or it is not switched on.",
            Problem::UnknownEmail => "No email has this id.",
            Problem::MethodNotAllowed(_) => "The header Allow names the methods of this path.",
            Problem::BodyTooSlow => "The body has to arrive within the time limit; send it again.",
            Problem::RivalInFlight => "Another request with this key has not ended yet; send it again later.",
            Problem::PayloadTooLarge(_) => {
                "The body has more bytes than this service takes; max_bytes says how many."
            }
            Problem::UnsupportedMediaType => "Send JSON with the header Content-Type: application/json.",
            Problem::KeyReused => {
                "The first request with this key had other content; it stands. New content needs a new key."
            }
            Problem::MailWithoutBody => {
                "The event has neither text nor html, nor an email_id by which the mail could be fetched; send it again later."
            }
            Problem::Overloaded => "Send the request again later; it is safe to repeat.",
            Problem::Unavailable => "Nothing was stored. Send the request again later.",
            Problem::OutcomeUnknown => {
                "It may or may not have been stored. Send it again later with the same key: it is stored once."
            }
            Problem::Internal => "The error has been logged; sending again is safe.",
        }
    }

    /// Whether it passes by itself.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.retry_after_seconds().is_some()
    }

    /// Seconds after which sending again makes sense, for what passes by itself.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u16> {
        match self {
            Problem::RivalInFlight | Problem::Overloaded => Some(1),
            Problem::Unavailable | Problem::OutcomeUnknown => Some(5),
            Problem::MailWithoutBody => Some(300),
            Problem::InvalidPayload(_)
            | Problem::UnsupportedEvent
            | Problem::KeyMissing
            | Problem::KeyMalformed
            | Problem::SignatureMissing
            | Problem::SignatureInvalid
            | Problem::SignatureStale
            | Problem::TokenInvalid
            | Problem::UnknownSource
            | Problem::UnknownPath
            | Problem::UnknownEmail
            | Problem::MethodNotAllowed(_)
            | Problem::BodyTooSlow
            | Problem::PayloadTooLarge(_)
            | Problem::UnsupportedMediaType
            | Problem::KeyReused
            | Problem::Internal => None,
        }
    }

    /// The response to the request of this id.
    #[must_use]
    pub fn reply(&self, request_id: &str) -> Reply {
        let (status, name, title) = self.row();
        let mut document = json!({
            "type": format!("/problems/{name}"),
            "title": title,
            "status": status,
            "detail": self.detail(),
            "request_id": request_id,
        });
        let member = if let Problem::InvalidPayload(errors) = self {
            let error = |error: &FieldError| json!({"pointer": error.pointer, "detail": error.detail});
            Some(("errors", errors.iter().map(error).collect()))
        } else if let Problem::PayloadTooLarge(bytes) = self {
            Some(("max_bytes", json!(bytes)))
        } else {
            None
        };
        if let (Some((name, value)), Some(members)) = (member, document.as_object_mut()) {
            members.insert(name.into(), value);
        }
        let mut answer = reply(status, "application/problem+json", document.to_string());
        let mut header = |name: HeaderName, value: HeaderValue| answer.headers_mut().insert(name, value);
        if let Some(seconds) = self.retry_after_seconds() {
            header(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Problem::MethodNotAllowed(allowed) = self {
            header(ALLOW, HeaderValue::from_static(allowed));
        }
        if *self == Problem::TokenInvalid {
            header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if *self == Problem::BodyTooSlow {
            // The rest of the body is still to come: the connection cannot carry another request.
            header(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}
