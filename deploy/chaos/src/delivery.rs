//! What the clients send, made from the seed: delivery n of a seed is always the same.
//!
//! The later a delivery's number, the later its `received_at`, and its amount is never lower: whatever the order of arrival, the
//! entry ends with its highest number, and the guard holds nothing. Most amounts tell whose they are; those of the hot entries
//! stay equal for a while, since a changed amount alone keeps a late writer out, and then only the stamp does.

use crate::stock;
use fastrand::Rng;
use jiff::Timestamp;
use serde_json::{Value, json};
use shared::message::EmailId;

/// `received_at` of delivery 0, in ms: 2026-01-05 08:00 UTC. One more for each number, so that no two of an entry are equal.
const FIRST_MS: i64 = 1_767_600_000_000;
/// Of delivery 0. The guard holds what is over 500,000.00.
const FIRST_CENTS: i64 = 10_000;
/// Most deliveries of a run.
pub const MOST: u64 = 49_000_000;
/// Of a hundred deliveries: those about one of the first entries, which many messages then wait for at once.
const HOT: u8 = 40;
const HOT_ENTRIES: usize = 5;
/// Numbers in a row that state the same amount about a hot entry.
const EQUAL: u64 = 4_000;

/// What is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A creditor's mail, by Zendesk's webhook.
    Mail,
    /// A debt update.
    Update,
    /// A debt update of low confidence: a person has to decide, and nothing is written.
    Unsure,
    /// An automatic answer, by webhook: nothing is written.
    Absence,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// From 0 on.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// Which entry it is about.
    pub entry: usize,
}

impl Delivery {
    /// Delivery `number` of a seed, about one of so many entries.
    #[must_use]
    pub fn new(seed: u64, number: u64, entries: usize) -> Delivery {
        let mut random = Rng::with_seed(seed.rotate_left(32) ^ number);
        let kind = match random.u8(..100) {
            0..40 => Kind::Mail,
            40..93 => Kind::Update,
            93..97 => Kind::Unsure,
            _ => Kind::Absence,
        };
        let among = if random.u8(..100) < HOT { HOT_ENTRIES.min(entries) } else { entries };
        Delivery { number, kind, entry: random.usize(..among) }
    }

    /// The provider's id of it.
    #[must_use]
    pub fn id(&self) -> String {
        format!("chaos-{}", self.number)
    }

    /// The amount that it states.
    #[must_use]
    pub fn cents(&self) -> i64 {
        let step = if self.entry < HOT_ENTRIES { EQUAL } else { 1 };
        FIRST_CENTS + i64::try_from(self.number / step * step).unwrap_or(i64::MAX / 2)
    }

    /// Its mail's time.
    #[must_use]
    pub fn received_at(&self) -> Timestamp {
        let ms = FIRST_MS + i64::try_from(self.number).unwrap_or(0);
        Timestamp::from_millisecond(ms).unwrap_or_default()
    }

    /// The stamp of its debt update, by the arithmetic of the design and not by the programs' own.
    #[must_use]
    pub fn stamp(&self, email_id: EmailId) -> i64 {
        self.received_at().as_millisecond() << 20 | (email_id % 65_536) << 4
    }

    /// Whether its amount belongs into MongoDB.
    #[must_use]
    pub fn is_written(&self) -> bool {
        matches!(self.kind, Kind::Mail | Kind::Update)
    }

    /// What its entry tells beside the amount: the amount once more, its source, the state, and both dates in ms.
    #[must_use]
    pub fn fields(&self) -> String {
        let ms = self.received_at().as_millisecond();
        format!("{} creditor_response responded {ms} {ms}", self.cents())
    }

    /// Whether a text is what the portal may show of it: of a mail the sentence that states its amount.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        if self.is_webhook() {
            text.contains(&format!(" {} EUR", german(self.cents())))
        } else {
            text == RESPONSE
        }
    }

    /// Whether it goes to the webhook; else to the debt updates.
    #[must_use]
    pub fn is_webhook(&self) -> bool {
        matches!(self.kind, Kind::Mail | Kind::Absence)
    }

    /// Its body; with `other_content`, one of the same id that says something else.
    #[must_use]
    pub fn body(&self, other_content: bool) -> String {
        let (client, creditor) = stock::of(self.entry);
        let cents = self.cents() + i64::from(other_content);
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        let body: Value = if self.is_webhook() {
            let (subject, text) = match self.kind {
                Kind::Absence => ("Automatische Antwort: Abwesenheit".to_owned(), ABSENCE.to_owned()),
                Kind::Mail | Kind::Update | Kind::Unsure => {
                    (format!("Ihr Zeichen {}", client.number()), statement(&client, &creditor, cents))
                }
            };
            json!({
                "ticket_id": if other_content { "48067" } else { "48066" }, "webhook_id": self.id(), "from_email": creditor.email(), "from_name": creditor.name(),
                "subject": subject, "body_text": text, "body_html": null, "received_at": self.received_at(),
            })
        } else {
            let confidence = if self.kind == Kind::Unsure { 0.4 } else { 0.93 };
            json!({
                "client_name": client.name(), "client_aktenzeichen": client.number(), "creditor_email": creditor.email(),
                "creditor_name": creditor.name(), "new_debt_amount": amount, "extraction_confidence": confidence,
                "response_text": RESPONSE, "received_at": self.received_at(), "ticket_id": "48066",
            })
        };
        body.to_string()
    }
}

/// Of a debt update.
const RESPONSE: &str = "Die Restforderung ist genannt.";
const ABSENCE: &str = "Ich bin bis 12.03. nicht im Hause. Ihre Nachricht wird nicht weitergeleitet.";

fn statement(client: &stock::Client, creditor: &stock::Creditor, cents: i64) -> String {
    format!(
        "Sehr geehrte Damen und Herren,\n\ndie Forderung unseres Hauses gegen Ihren Mandanten {} (Ihr Zeichen: {}) beträgt per heute \
         {} EUR.\n\nMit freundlichen Grüßen\n\n{}\n",
        client.full_name(),
        client.number(),
        german(cents),
        creditor.name()
    )
}

/// 1.234,56
fn german(cents: i64) -> String {
    let euros = (cents / 100).to_string();
    let (thousands, rest) = euros.split_at(euros.len().saturating_sub(3));
    let point = if thousands.is_empty() { "" } else { "." };
    format!("{thousands}{point}{rest},{:02}", cents % 100)
}
