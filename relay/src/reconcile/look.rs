//! One look at entries of the ledger in MongoDB: which differ, and which only seem to, since a message is on its way.

use super::{
    Stop, ask,
    plan::{Debt, Drift, Seen, drift, expected},
    store,
};
use crate::{
    client::{Client, Entry},
    context::Context,
    mongo::Found,
    outcome::FailureClass,
};
use shared::message::{Expected, Operation, Stamp};
use std::collections::{HashMap, HashSet};

/// An entry that differs, and what a repair has to find again.
pub(super) struct Suspect {
    pub(super) debt: Debt,
    pub(super) drift: Drift,
    pub(super) expected: Option<Expected>,
}

/// One look at these entries: those that differ, without those that a message on its way explains.
pub(super) async fn look(context: &Context, debts: &[Debt]) -> Result<Vec<Suspect>, Stop> {
    let mut ids: Vec<&str> = debts.iter().map(|debt| debt.client_id.as_str()).collect();
    ids.dedup();
    let documents = find(context, &ids).await?;
    let clients: HashMap<&str, &Client> =
        documents.found.iter().map(|found| (found.client.client_id.as_str(), &found.client)).collect();
    let mut suspects = Vec::new();
    let mut ahead: Vec<(usize, Vec<String>)> = Vec::new();
    for debt in debts {
        let seen = seen(debt, clients.get(debt.client_id.as_str()).copied(), &documents.unread);
        let Some(drift) = drift(debt, seen) else { continue };
        let entry = match seen {
            Seen::Entry(entry) => Some(entry),
            Seen::NoClient | Seen::NoEntry | Seen::Unclear => None,
        };
        if let Some(entry) = entry.filter(|_| drift == Drift::Ahead) {
            ahead.push((suspects.len(), keys_of(entry)));
        }
        suspects.push(Suspect { debt: debt.clone(), drift, expected: entry.map(expected) });
    }
    if !ahead.is_empty() {
        let keys: Vec<String> = ahead.iter().flat_map(|(_, keys)| keys.clone()).collect();
        let on_their_way =
            ask(context, async |connection| store::unfinished(connection, &keys).await).await?;
        let is_explained = |at: usize| {
            ahead
                .iter()
                .any(|(index, keys)| *index == at && keys.iter().any(|key| on_their_way.contains(key)))
        };
        let mut at = 0;
        suspects.retain(|_| {
            at += 1;
            !is_explained(at - 1)
        });
    }
    Ok(suspects)
}

fn seen<'a>(debt: &Debt, client: Option<&'a Client>, unread: &HashSet<String>) -> Seen<'a> {
    let Some(client) = client else {
        return if unread.contains(&debt.client_id) { Seen::Unclear } else { Seen::NoClient };
    };
    let mut named = client.entries.iter().filter(|entry| entry.entry_key == debt.entry_key);
    match (named.next(), named.next()) {
        (None, _) => Seen::NoEntry,
        (Some(entry), None) => Seen::Entry(entry),
        (Some(_), Some(_)) => Seen::Unclear,
    }
}

/// The keys that the message behind an entry's mark may have.
fn keys_of(entry: &Entry) -> Vec<String> {
    let Some(fence) = &entry.fence else { return Vec::new() };
    let Ok(stamp) = fence.stamp.parse::<Stamp>() else { return Vec::new() };
    let operation = Operation::CreditorDebtUpdate;
    vec![operation.key(fence.email_id, stamp.revision()), operation.correction_key(fence.email_id, stamp)]
}

struct Documents {
    found: Vec<Found>,
    /// Clients whose documents are too large to be read.
    unread: HashSet<String>,
}

/// The documents of these clients. What is too much for one find is halved.
async fn find(context: &Context, ids: &[&str]) -> Result<Documents, Stop> {
    let mut documents = Documents { found: Vec::new(), unread: HashSet::new() };
    let mut parts = vec![ids];
    while let Some(part) = parts.pop() {
        match context.clients.find_by_ids(part).await {
            Ok(found) => documents.found.extend(found),
            Err(failure) if failure.class != FailureClass::Permanent => return Err(Stop::MongoAway(failure)),
            Err(_) => match part {
                [only] => drop(documents.unread.insert((*only).to_owned())),
                part => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([first, second]);
                }
            },
        }
    }
    Ok(documents)
}
