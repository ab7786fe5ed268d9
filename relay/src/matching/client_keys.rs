//! Which clients an update may mean: by the firm's case number, else by exact name in every order.

use super::words::fold;
use crate::client::Client;
use shared::message::CreditorDebtUpdate;
use std::collections::{BTreeSet, HashMap};

/// What the update's client may be called in MongoDB.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientKeys {
    /// `_id` of the one that a person has named; nothing else counts then.
    pub client_id: Option<String>,
    /// Spellings of the mail's own case number (`/` and `_` are the same).
    pub aktenzeichen: Vec<String>,
    /// Spellings of the other numbers in the mail, tried when the first exists nowhere.
    pub other_numbers: Vec<String>,
    /// (last name, first name) in every order that the text allows.
    pub names: Vec<(String, String)>,
}

/// The keys to look for.
#[must_use]
pub fn client_keys(update: &CreditorDebtUpdate) -> ClientKeys {
    let aktenzeichen = update.client_aktenzeichen.as_deref().map(spellings).unwrap_or_default();
    let other_numbers: BTreeSet<String> =
        update.reference_numbers.iter().flat_map(|number| spellings(number)).collect();
    let other_numbers = other_numbers.into_iter().collect();
    let names = update.client_name.as_deref().map(name_orders).unwrap_or_default();
    ClientKeys { client_id: update.client_id.clone(), aktenzeichen, other_numbers, names }
}

impl ClientKeys {
    /// Whether nothing identifies the client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.client_id.is_none() && self.aktenzeichen.is_empty() && self.names.is_empty()
    }
}

/// The clients that were found, by what an update may call them.
#[derive(Debug, Default)]
pub struct ClientIndex<'a> {
    by_id: HashMap<&'a str, &'a Client>,
    by_number: HashMap<&'a str, Vec<&'a Client>>,
    /// By folded (last name, first name).
    by_name: HashMap<(String, String), Vec<&'a Client>>,
}

impl<'a> ClientIndex<'a> {
    /// The index over these clients.
    pub fn new(clients: impl Iterator<Item = &'a Client>) -> ClientIndex<'a> {
        let mut index = ClientIndex::default();
        for client in clients {
            index.by_id.insert(&client.client_id, client);
            if let Some(number) = &client.aktenzeichen {
                index.by_number.entry(number).or_default().push(client);
            }
            index.by_name.entry(folded(&client.last_name, &client.first_name)).or_default().push(client);
        }
        index
    }

    /// The clients that the update may mean: by number, else by name.
    #[must_use]
    pub fn select(&self, keys: &ClientKeys) -> Vec<&'a Client> {
        if let Some(id) = &keys.client_id {
            return self.by_id.get(id.as_str()).copied().into_iter().collect();
        }
        let by_number = self.numbered(&keys.aktenzeichen);
        if !by_number.is_empty() {
            return by_number;
        }
        let names: BTreeSet<(String, String)> = keys
            .names
            .iter()
            .map(|(last, first)| folded(last, first))
            .filter(|(last, _)| !last.is_empty())
            .collect();
        // A creditor's own number may look like a case number of ours, so here the name has to agree.
        let agrees = |client: &&Client| names.contains(&folded(&client.last_name, &client.first_name));
        let by_other: Vec<_> = self.numbered(&keys.other_numbers).into_iter().filter(agrees).collect();
        if !by_other.is_empty() {
            return by_other;
        }
        names.iter().filter_map(|name| self.by_name.get(name)).flatten().copied().collect()
    }

    /// Clients that one of the mail's other numbers names: for a person to look at when [`ClientIndex::select`] finds nobody, since
    /// they go by another name than the mail's.
    #[must_use]
    pub fn otherwise_named(&self, keys: &ClientKeys) -> Vec<&'a Client> {
        if keys.client_id.is_some() { Vec::new() } else { self.numbered(&keys.other_numbers) }
    }

    fn numbered(&self, numbers: &[String]) -> Vec<&'a Client> {
        numbers.iter().filter_map(|number| self.by_number.get(number.as_str())).flatten().copied().collect()
    }
}

fn folded(last: &str, first: &str) -> (String, String) {
    (fold(last), fold(first))
}

/// A case number as it may be written, with / and with _; none of an empty text.
#[must_use]
pub fn spellings(number: &str) -> Vec<String> {
    let number = number.trim();
    if number.is_empty() {
        return Vec::new();
    }
    BTreeSet::from([number.to_owned(), number.replace('/', "_"), number.replace('_', "/")])
        .into_iter()
        .collect()
}

/// `Nachname, Vorname` first as written, then the other way round; without a comma every split in both orders.
fn name_orders(name: &str) -> Vec<(String, String)> {
    let clean = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((last, first)) = name.split_once(',') {
        let (last, first) = (clean(last), clean(first));
        return vec![(last.clone(), first.clone()), (first, last)];
    }
    let words: Vec<&str> = name.split_whitespace().take(8).collect(); // nobody has more; the query stays bounded
    let mut orders = Vec::new();
    for at in 1..words.len() {
        let (front, back) = words.split_at(at);
        orders.push((back.join(" "), front.join(" ")));
        orders.push((front.join(" "), back.join(" ")));
    }
    orders
}
