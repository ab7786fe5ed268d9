//! MongoDB's side of an explanation: what the entries hold now. Without MongoDB the rest is told all the same.

use crate::{
    client::{Client, Entry, StoredAmount},
    mongo::Clients,
};
use serde::Serialize;
use shared::{message::EmailId, money::Amount};
use std::{collections::HashSet, fmt, time::Duration};
use tokio::time::timeout;

/// Somebody waits at a terminal.
const PATIENCE: Duration = Duration::from_secs(5);
/// Entries that are shown.
const MOST: usize = 100;

/// Where MongoDB is.
#[derive(Debug, Clone)]
pub enum MongoDb {
    /// Nowhere.
    NotConfigured,
    /// What is configured cannot be used.
    Unusable(String),
    /// There.
    Clients(Clients),
}

/// What MongoDB says.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum MongoSide {
    /// Nobody asked.
    NotConfigured,
    /// It does not answer.
    Away {
        /// Why.
        error: String,
    },
    /// It answers.
    Answered {
        /// The entries that were asked for, as far as they are there.
        entries: Vec<MongoEntry>,
    },
}

/// An entry as it is in MongoDB now.
#[derive(Debug, Serialize)]
pub struct MongoEntry {
    /// `_id` of the client's document.
    pub client_id: String,
    /// The client's number.
    pub aktenzeichen: Option<String>,
    /// The entry's key.
    pub entry_key: String,
    /// `current_debt_amount`, exact, as text; null = none, or none that can be read.
    pub amount: Option<Amount>,
    /// Whether there is something that is no amount.
    pub is_unreadable: bool,
    /// The stamp of our mark; null = no mark.
    pub stamp: Option<String>,
    /// Its mail; below zero: written by `relay apply`.
    pub email_id: Option<EmailId>,
    /// The amount before it.
    pub previous: Option<Amount>,
}

impl MongoDb {
    /// The wanted entries of the clients of these `_id`s or numbers.
    pub async fn entries(
        &self,
        ids: &[&str],
        numbers: &[&str],
        wanted: impl Fn(&Client, &Entry) -> bool,
    ) -> MongoSide {
        let clients = match self {
            MongoDb::NotConfigured => return MongoSide::NotConfigured,
            MongoDb::Unusable(error) => return MongoSide::Away { error: error.clone() },
            MongoDb::Clients(clients) => clients,
        };
        let look = async {
            let mut found = clients.find_by_ids(ids).await?;
            found.extend(clients.find_by_numbers(numbers).await?);
            Ok::<_, crate::outcome::Failure>(found)
        };
        let found = match timeout(PATIENCE, look).await {
            Ok(Ok(found)) => found,
            Ok(Err(failure)) => return MongoSide::Away { error: failure.text },
            Err(_) => {
                return MongoSide::Away { error: format!("no reply within {} s", PATIENCE.as_secs()) };
            }
        };
        let mut seen = HashSet::new();
        let documents =
            found.iter().map(|found| &found.client).filter(|client| seen.insert(&client.client_id));
        let entries = documents.flat_map(|client| client.entries.iter().map(move |entry| (client, entry)));
        let entries = entries.filter(|(client, entry)| wanted(client, entry)).take(MOST);
        MongoSide::Answered {
            entries: entries.map(|(client, entry)| MongoEntry::of(client, entry)).collect(),
        }
    }
}

impl MongoSide {
    /// The entries that it has told of.
    #[must_use]
    pub fn entries(&self) -> &[MongoEntry] {
        match self {
            MongoSide::Answered { entries } => entries,
            MongoSide::NotConfigured | MongoSide::Away { .. } => &[],
        }
    }
}

impl MongoEntry {
    fn of(client: &Client, entry: &Entry) -> MongoEntry {
        MongoEntry {
            client_id: client.client_id.clone(),
            aktenzeichen: client.aktenzeichen.clone(),
            entry_key: entry.entry_key.clone(),
            amount: entry.stored.known(),
            is_unreadable: entry.stored == StoredAmount::Unreadable,
            stamp: entry.fence.as_ref().map(|fence| fence.stamp.clone()),
            email_id: entry.fence.as_ref().map(|fence| fence.email_id),
            previous: entry.fence.as_ref().and_then(|fence| fence.previous),
        }
    }
}

/// What the entry holds, in words.
impl fmt::Display for MongoEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.amount, self.is_unreadable) {
            (Some(amount), _) => write!(formatter, "{amount} EUR")?,
            (None, true) => formatter.write_str("something that is no amount")?,
            (None, false) => formatter.write_str("no amount")?,
        }
        let Some(stamp) = &self.stamp else { return formatter.write_str(", without our mark") };
        write!(formatter, ", stamp {stamp}")?;
        match self.email_id {
            Some(email_id) if email_id > 0 => write!(formatter, " of email {email_id}")?,
            Some(email_id) if email_id < 0 => formatter.write_str(" of `relay apply`")?,
            Some(_) | None => {}
        }
        let previous = self.previous.map_or_else(|| "nothing".into(), |amount| format!("{amount} EUR"));
        write!(formatter, ", before it {previous}")
    }
}

/// One line for what is not there, else one per entry.
impl fmt::Display for MongoSide {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MongoSide::NotConfigured => writeln!(formatter, "MongoDB: not configured"),
            MongoSide::Away { error } => writeln!(formatter, "MongoDB: away ({error})"),
            MongoSide::Answered { entries } if entries.is_empty() => {
                writeln!(formatter, "MongoDB: no such entry")
            }
            MongoSide::Answered { entries } => entries.iter().try_for_each(|entry| {
                let client = entry.aktenzeichen.as_ref().unwrap_or(&entry.client_id);
                writeln!(formatter, "MongoDB: client {client}, creditor {}: {entry}", entry.entry_key)
            }),
        }
    }
}
