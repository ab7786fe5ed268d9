//! STAND-IN, being written.
use super::{ExtractedEntities, Intent, Mail};
/// Nothing yet.
pub fn extract(_: &Mail<'_>) -> ExtractedEntities {
    ExtractedEntities {
        is_creditor_reply: false,
        intent: Intent::Question,
        client_name: None,
        client_aktenzeichen: None,
        creditor_name: None,
        debt_amount: None,
        reference_numbers: vec![],
        confidence: 0.0,
        summary: None,
    }
}
