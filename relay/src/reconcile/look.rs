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
use shared::message::{EmailId, Expected, Operation, Stamp};
use std::collections::{HashMap, HashSet};

/// An entry that differs, and what a repair has to find again.
pub(super) struct Suspect {
    pub(super) debt: Debt,
    pub(super) drift: Drift,
    pub(super) expected: Option<Expected>,
    /// The mail of the entry's mark.
    pub(super) mark: Option<EmailId>,
    /// The keys that the message behind the entry's mark may have, where the mark is ahead.
    keys: Vec<String>,
}

/// One look at these entries: those that differ, without those that a message on its way explains.
pub(super) async fn look(context: &Context, debts: &[Debt]) -> Result<Vec<Suspect>, Stop> {
    let mut ids: Vec<&str> = debts.iter().map(|debt| debt.client_id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let documents = find(context, &ids).await?;
    let clients: HashMap<&str, &Client> =
        documents.found.iter().map(|found| (found.client.client_id.as_str(), &found.client)).collect();
    let mut suspects = Vec::new();
    for debt in debts {
        let seen = seen(debt, clients.get(debt.client_id.as_str()).copied(), &documents.unread);
        let Some(drift) = drift(debt, seen) else { continue };
        let expected = match seen {
            Seen::Entry(entry) => Some(expected(entry)),
            Seen::NoClient | Seen::NoEntry | Seen::Unclear => None,
        };
        let (mark, keys) = match seen {
            Seen::Entry(entry) => (
                entry.fence.as_ref().map(|fence| fence.email_id),
                if drift == Drift::Ahead { keys_of(entry) } else { Vec::new() },
            ),
            Seen::NoClient | Seen::NoEntry | Seen::Unclear => (None, Vec::new()),
        };
        suspects.push(Suspect { debt: debt.clone(), drift, expected, mark, keys });
    }
    drop(documents);
    explain_away(context, &mut suspects).await?;
    Ok(suspects)
}

/// What is ahead of the ledger may be on its way, or have arrived since the page was read: first the messages are asked for, then the
/// ledger, so that one that ends in between is found in the one or the other.
async fn explain_away(context: &Context, suspects: &mut Vec<Suspect>) -> Result<(), Stop> {
    let ahead: Vec<Debt> = suspects
        .iter()
        .filter(|suspect| suspect.drift == Drift::Ahead)
        .map(|suspect| suspect.debt.clone())
        .collect();
    if ahead.is_empty() {
        return Ok(());
    }
    let keys: Vec<String> = suspects.iter().flat_map(|suspect| suspect.keys.clone()).collect();
    let look = ask(context, async |connection| {
        let on_their_way = store::on_their_way(connection, &keys).await?;
        Ok((on_their_way, store::again(connection, &ahead).await?))
    });
    let (on_their_way, now) = look.await?;
    let stamps: HashMap<(&str, &str), String> = now
        .iter()
        .map(|debt| ((debt.client_id.as_str(), debt.entry_key.as_str()), debt.stamp.to_string()))
        .collect();
    suspects.retain(|Suspect { debt, drift, expected, keys, .. }| {
        let known = stamps.get(&(debt.client_id.as_str(), debt.entry_key.as_str()));
        let mark = expected.as_ref().and_then(|seen| seen.stamp.as_ref());
        let has_arrived = known.zip(mark).is_some_and(|(known, mark)| known >= mark);
        let is_moving = |key| on_their_way.get(key).is_some_and(|moving| Some(moving) == mark);
        *drift != Drift::Ahead || !(has_arrived || keys.iter().any(is_moving))
    });
    Ok(())
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
pub(super) fn keys_of(entry: &Entry) -> Vec<String> {
    let Some(fence) = &entry.fence else { return Vec::new() };
    let Ok(stamp) = fence.stamp.parse::<Stamp>() else { return Vec::new() };
    let operation = Operation::CreditorDebtUpdate;
    let own =
        [operation.key(fence.email_id, stamp.revision()), operation.correction_key(fence.email_id, stamp)];
    own.into_iter().chain(operation.replay_keys(fence.email_id)).collect()
}

struct Documents {
    found: Vec<Found>,
    /// Clients whose documents are too large to be read.
    unread: HashSet<String>,
}

/// The documents of these clients. What is too much for one find is halved.
async fn find(context: &Context, ids: &[&str]) -> Result<Documents, Stop> {
    let mut documents = Documents { found: Vec::new(), unread: HashSet::new() };
    let clients = context.clients.doing("relay reconciliation");
    let mut parts = vec![ids];
    while let Some(part) = parts.pop() {
        match clients.find_by_ids(part).await {
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
