//! What a message is called in logs and in what is said to MongoDB.

use shared::{
    message::{EmailId, MessageId, Operation},
    trace::TraceId,
};

/// A message's names: nothing of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its id.
    pub message_id: MessageId,
    /// The mail it is about.
    pub email_id: EmailId,
    /// Its kind.
    pub operation: Operation,
    /// Its key; ingest's log names the first message of a mail by it.
    pub idempotency_key: String,
    /// The trace that it belongs to.
    pub trace_id: Option<TraceId>,
}

impl Label {
    /// Whatever is logged in it carries the names. Of the highest level, so that the names are there whatever the filter lets through.
    #[must_use]
    pub fn span(&self) -> tracing::Span {
        tracing::error_span!(
            "message",
            message_id = self.message_id,
            email_id = self.email_id,
            operation = self.operation.name(),
            saga_step = self.operation.name(),
            idempotency_key = self.idempotency_key,
            trace_id = self.trace_id.map(tracing::field::display),
        )
    }
}
