//! What a request says about its mail: the columns of `incoming_emails` that ingest fills.

use crate::{json_body::Fields, received_at::ReceivedAt};
use serde_json::{Map, Value, json};
use std::fmt;

/// One mail, or the mail behind a ready debt update. Texts are free of NUL.
#[derive(Clone, PartialEq)]
pub struct Email {
    /// The provider's own id of the delivery; without one the request key stands in.
    pub webhook_id: Option<String>,
    /// The ticket that the mail opened.
    pub ticket_id: Option<String>,
    /// The sender's bare address.
    pub from_email: String,
    /// The sender's name.
    pub from_name: Option<String>,
    /// The subject line.
    pub subject: Option<String>,
    /// The plain text.
    pub body_text: Option<String>,
    /// The HTML text.
    pub body_html: Option<String>,
    /// A list of {url, id, filename, `content_type`, size}, as far as given.
    pub attachments: Option<Value>,
    /// When it was received.
    pub received_at: ReceivedAt,
}

/// Personal data: a `Debug` print shows none of it.
impl fmt::Debug for Email {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Email { .. }")
    }
}

/// Characters of a provider's or ticket system's id: what the column holds.
pub const MAX_ID_CHARACTERS: usize = 255;
/// No own bound: the limit of the whole body holds.
pub const UNBOUNDED: usize = usize::MAX;
/// Attachments of one mail.
const MAX_ATTACHMENTS: usize = 1000;

/// Reads the optional field `attachments`: a list of objects, of which the known members are kept.
pub fn attachments(fields: &mut Fields) -> Option<Value> {
    const NAME: &str = "attachments";
    let items = match fields.take(NAME)? {
        Value::Array(items) if items.len() <= MAX_ATTACHMENTS => items,
        Value::Array(_) => {
            fields.wrong(NAME, "", format!("must have at most {MAX_ATTACHMENTS} items"));
            return None;
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            fields.wrong(NAME, "", "must be a list of objects or null");
            return None;
        }
    };
    let mut kept = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        if let Value::Object(members) = item {
            kept.push(attachment(fields, index, members));
        } else {
            fields.wrong(NAME, &format!("/{index}"), "must be an object");
        }
    }
    Some(Value::Array(kept))
}

fn attachment(fields: &mut Fields, index: usize, members: Map<String, Value>) -> Value {
    let mut part = fields.below(&format!("/attachments/{index}"), members);
    let mut kept = Map::new();
    for name in ["url", "id", "filename", "content_type"] {
        if let Some(text) = part.text(name, UNBOUNDED) {
            kept.insert(name.into(), text.into());
        }
    }
    match part.take("size") {
        None => {}
        Some(Value::Number(size)) if size.as_u64().is_some() => {
            kept.insert("size".into(), json!(size.as_u64()));
        }
        Some(_) => part.wrong("size", "", "must be a whole number of bytes or null"),
    }
    fields.absorb(part);
    Value::Object(kept)
}
