//! What the relay knows of a client document: plain data, as matching and the write guard read it. Knows nothing of BSON.

use jiff::Timestamp;
use shared::{message::EmailId, money::Amount};

/// A document of the collection `clients`.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// Its `_id` as text.
    pub client_id: String,
    /// The firm's case number.
    pub aktenzeichen: Option<String>,
    /// First name, as stored.
    pub first_name: String,
    /// Last name, as stored.
    pub last_name: String,
    /// The creditor entries, in list order.
    pub entries: Vec<Entry>,
}

/// One element of `final_creditor_list`.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its place in the list at the time of reading; the list is rewritten by others at any time.
    pub position: usize,
    /// Its unique string `id`; None = it can only be addressed by its identity fields at its position.
    pub id: Option<String>,
    /// The ledger's key: the id, else a hash over the identity fields.
    pub entry_key: String,
    /// Whether a filter can mean this entry and no other. One that cannot still takes part in the matching, else a worse fit
    /// would win; it is never written.
    pub addressable: bool,
    /// The fields that tell one entry from another.
    pub identity: Identity,
    /// `current_debt_amount`.
    pub stored: StoredAmount,
    /// `response_received_at`: when the creditor's answer came, whoever has entered it.
    pub answered_at: Option<Timestamp>,
    /// Our own mark in the entry; None = missing or not ours to read.
    pub fence: Option<Fence>,
}

/// The fields that tell one creditor entry from another; None = null, missing or no string.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// `sender_name`
    pub sender_name: Option<String>,
    /// `sender_email`
    pub sender_email: Option<String>,
    /// `glaeubiger_name`
    pub glaeubiger_name: Option<String>,
    /// `glaeubigervertreter_name`
    pub glaeubigervertreter_name: Option<String>,
    /// `actual_creditor`
    pub actual_creditor: Option<String>,
    /// `reference_number`
    pub reference_number: Option<String>,
}

impl Identity {
    /// The fields with their names, in the canonical order.
    #[must_use]
    pub fn fields(&self) -> [(&'static str, Option<&str>); 6] {
        [
            ("sender_name", self.sender_name.as_deref()),
            ("sender_email", self.sender_email.as_deref()),
            ("glaeubiger_name", self.glaeubiger_name.as_deref()),
            ("glaeubigervertreter_name", self.glaeubigervertreter_name.as_deref()),
            ("actual_creditor", self.actual_creditor.as_deref()),
            ("reference_number", self.reference_number.as_deref()),
        ]
    }

    /// The names of the creditor, its representative and who holds the claim.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [&self.sender_name, &self.glaeubiger_name, &self.glaeubigervertreter_name, &self.actual_creditor]
            .into_iter()
            .filter_map(|name| name.as_deref())
            .filter(|name| !name.trim().is_empty())
    }

    /// Whether nothing in it tells the entry from any other.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields().iter().all(|(_, value)| value.is_none_or(|text| text.trim().is_empty()))
    }
}

/// The amount in an entry as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredAmount {
    /// The field is missing or null: the creditor has not answered yet.
    None,
    /// A number within the bounds of money.
    Known(Amount),
    /// Anything else (text, negative, NaN): a person has to look before we write over it.
    Unreadable,
}

impl StoredAmount {
    /// The amount, if it is one.
    #[must_use]
    pub fn known(self) -> Option<Amount> {
        match self {
            StoredAmount::Known(amount) => Some(amount),
            StoredAmount::None | StoredAmount::Unreadable => None,
        }
    }
}

/// Our mark in an entry: which update it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The stamp of that update, as it stands there: compared as a string, like MongoDB does.
    pub stamp: String,
    /// Its mail.
    pub email_id: EmailId,
    /// The amount that was there before it.
    pub previous: Option<Amount>,
}
