//! Carries debt updates to MongoDB, round after round. Knows no message of the outbox: `relay apply` uses it without Postgres.
//!
//! A round plans every open update from what MongoDB and the ledger say now and sends one command. If not every statement changed
//! its entry, or the outcome is unknown, the next round looks again: its own stamp in the entry means applied, a higher one
//! superseded, anything else is planned anew. So there is one code path for first try, lost race, moved entry and lost reply.

use super::plan::{Documents, Marks, Open, Step, Target, Verdict, locate, plan, settle};
use crate::{
    client::Entry,
    context::Context,
    ledger,
    mongo::{Clients, EntryUpdate, Found},
    outcome::{Failure, FailureClass},
    write_guard::WriteGuard,
};
use shared::postgres::Connection;
use shared::{message::MessageId, trace::TraceId};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// Rounds without any message ending: the first, one after a lost race or an unknown outcome, one more for an entry that moved again.
const ROUNDS: usize = 3;
/// Statements of one update command: some 500 KiB, far from the 16 MiB that a command may have.
const STATEMENTS: usize = 500;
/// Messages that a line of the log names.
const NAMED: usize = 20;
/// For one look into the ledger.
const LOOK: Duration = Duration::from_secs(2);

/// What a round works with.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) clients: &'a Clients,
    pub(crate) guard: WriteGuard,
    /// Where the ledger is; None = nobody asks it, and an entry without a mark lets every update pass.
    pub(crate) context: Option<&'a Context>,
    /// Nothing is sent, and what would be is taken for written.
    pub(crate) is_dry: bool,
}

/// What became of an update.
pub(crate) enum End {
    /// It has come to an end.
    Verdict(Verdict),
    /// It cannot be carried out now.
    Failed(Failure),
    /// It was in the way of others, or they in its.
    Postponed(Failure),
}

/// What the server or the driver holds against many messages may be one message's fault: halves until that one is alone. Returns
/// what ended and what failed.
pub(crate) async fn carry_or_halve(
    means: Means<'_>,
    open: Vec<Open>,
    deadline: Instant,
) -> (Vec<(Open, End)>, Vec<(Open, Failure)>) {
    let (mut ended, mut failed) = (Vec::new(), Vec::new());
    let mut parts = vec![open];
    while let Some(mut part) = parts.pop() {
        let Err(failure) = carry(means, &mut part, &mut ended, deadline).await else { continue };
        if part.len() > 1 && !failure.class.is_the_sinks() {
            let rest = part.split_off(part.len() / 2);
            parts.extend([rest, part]);
        } else {
            failed.extend(part.into_iter().map(|message| (message, failure.clone())));
        }
    }
    (ended, failed)
}

/// Round after round until nothing is open.
///
/// # Errors
/// Why what is left in `open` could not be carried out.
async fn carry(
    means: Means<'_>,
    open: &mut Vec<Open>,
    ends: &mut Vec<(Open, End)>,
    deadline: Instant,
) -> Result<(), Failure> {
    let (mut last, mut fruitless, mut is_unsettled) = (Ok(()), 0, false);
    while fruitless < ROUNDS {
        if open.is_empty() {
            return Ok(());
        }
        fruitless += 1;
        // What was seen before says more than that the time is over.
        let late = |_| {
            let failure = Failure::new(FailureClass::UnknownOutcome, "the time for this attempt is over");
            Err(last.clone().err().unwrap_or_else(|| means.clients.unreachable(failure)))
        };
        match timeout_at(deadline, round(means, open)).await.unwrap_or_else(late) {
            Ok(mut ended) => {
                last = Ok(());
                if !ended.is_empty() {
                    fruitless = 0;
                }
                for message in std::mem::take(open) {
                    match ended.remove(&message.id) {
                        Some(Ok(verdict)) => ends.push((message, End::Verdict(verdict))),
                        Some(Err(failure)) => ends.push((message, End::Failed(failure))),
                        None => open.push(message),
                    }
                }
            }
            // The next round finds out what became of it; if there is none, the fence makes the repeat safe.
            Err(failure) if failure.class == FailureClass::UnknownOutcome && open.iter().any(|m| m.sent) => {
                let messages: Vec<MessageId> = open.iter().map(|message| message.id).take(NAMED).collect();
                tracing::warn!(%failure, ?messages, count = open.len(), "looking again");
                (last, is_unsettled) = (Err(failure), true);
            }
            Err(failure) => return Err(failure),
        }
    }
    last?;
    for mut message in std::mem::take(open) {
        let end = match message.refused.take() {
            // Others have changed the entry each time, or a newer message has not got through: not this one's fault. Nor is a write that
            // a primary has taken and that its majority does not show yet.
            _ if message.raced || !message.sent || is_unsettled => {
                let text = "others keep changing the entry, or MongoDB has not settled on it";
                End::Postponed(Failure::new(FailureClass::Transient, text))
            }
            Some(failure) => End::Failed(failure),
            None => {
                let text = "the entry does not take the update, although nobody changes it";
                End::Failed(Failure::new(FailureClass::Transient, text))
            }
        };
        ends.push((message, end));
    }
    Ok(())
}

/// One look and one command. Messages that are not among the returned are open still.
async fn round(
    means: Means<'_>,
    open: &mut [Open],
) -> Result<HashMap<MessageId, Result<Verdict, Failure>>, Failure> {
    // Without a context there are no messages: what an update is called there is the number of its line.
    let named = |_| means.clients.about(open.iter().map(|message| (message.id, message.trace_id)));
    let clients = means.context.map_or_else(|| means.clients.clone(), named);
    let means = Means { clients: &clients, ..means };
    let found = find(means.clients, open).await?;
    let documents = Documents::new(&found);
    let targets: Vec<Result<Target<'_>, Box<Step>>> =
        open.iter().map(|message| locate(&documents, message)).collect();
    let seen: Vec<Option<&Entry>> =
        targets.iter().map(|target| target.as_ref().ok().map(|target| target.entry)).collect();
    let marks = ledger_marks(means.context, open, &targets).await?;
    let mut steps = plan(means.guard, open, targets, &marks);

    let mut writes = Vec::new();
    for (message, (target, step)) in open.iter().zip(&steps) {
        if let (Some(target), Step::Write { amount, .. }) = (target, step) {
            let update = EntryUpdate {
                found: target.found,
                entry: target.entry,
                update: &message.update,
                amount: *amount,
            };
            writes.push(((message.id, message.trace_id), update));
        }
    }
    let sent: HashSet<MessageId> = writes.iter().map(|((id, _), _)| *id).collect();
    let mut refused = HashMap::new();
    let outcome = match means.is_dry {
        true => Ok(writes.iter().map(|((id, _), _)| (*id, Ok(()))).collect()),
        false => write(means, &writes, &mut refused).await,
    };
    drop(writes);
    let result = outcome.map(|results| settle(&mut steps, open, results));
    let has_ended = |id: &MessageId| result.as_ref().is_ok_and(|ended| ended.contains_key(id));
    for (message, seen) in open.iter_mut().zip(seen).filter(|(message, _)| !has_ended(&message.id)) {
        message.sent |= sent.contains(&message.id);
        message.raced = message.seen.as_ref().is_some_and(|before| Some(before) != seen);
        message.refused = refused.remove(&message.id);
        message.seen = seen.cloned();
    }
    result
}

/// The documents that the messages may mean: by number without collation, then by name what that left unmatched. Where a person
/// has named the client, that one.
async fn find(clients: &Clients, open: &[Open]) -> Result<Vec<Found>, Failure> {
    let (named, open): (Vec<&Open>, Vec<&Open>) = open.iter().partition(|m| m.keys.client_id.is_some());
    let ids: HashSet<&str> = named.iter().filter_map(|m| m.keys.client_id.as_deref()).collect();
    let by_id = clients.find_by_ids(&ids.into_iter().collect::<Vec<_>>()).await?;
    let numbers: HashSet<&str> = open
        .iter()
        .flat_map(|m| m.keys.aktenzeichen.iter().chain(&m.keys.other_numbers))
        .map(String::as_str)
        .collect();
    let mut documents = clients.find_by_numbers(&numbers.into_iter().collect::<Vec<_>>()).await?;
    let known: HashSet<&str> =
        documents.iter().filter_map(|found| found.client.aktenzeichen.as_deref()).collect();
    let unmatched = open
        .iter()
        .filter(|message| !message.keys.aktenzeichen.iter().any(|number| known.contains(number.as_str())));
    let names: HashSet<&(String, String)> = unmatched.flat_map(|message| &message.keys.names).collect();
    let by_name = clients.find_by_names(&names.into_iter().collect::<Vec<_>>()).await?;
    let mut have: HashSet<String> = documents.iter().map(|found| found.client.client_id.clone()).collect();
    let others = by_name.into_iter().chain(by_id);
    documents.extend(others.filter(|found| have.insert(found.client.client_id.clone())));
    Ok(documents)
}

/// What the ledger knows of the entries whose own mark is missing: new ones, and those that the portal has rewritten; and of those
/// that a repair means, whose plan may be older than what the ledger has by now.
async fn ledger_marks(
    context: Option<&Context>,
    open: &[Open],
    targets: &[Result<Target<'_>, Box<Step>>],
) -> Result<Marks, Failure> {
    let Some(context) = context else { return Ok(HashMap::new()) };
    let asked =
        targets.iter().zip(open).filter_map(|(target, message)| Some((target.as_ref().ok()?, message)));
    let asked =
        asked.filter(|(target, message)| target.entry.fence.is_none() || message.update.expected.is_some());
    let keys: HashSet<(&str, &str)> = asked
        .map(|(target, _)| target)
        .map(|target| (target.found.client.client_id.as_str(), target.entry.entry_key.as_str()))
        .collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let keys: Vec<_> = keys.into_iter().collect();
    let look = async |connection: &mut Connection| {
        ledger::marks(connection, &keys).await.map_err(|error| ledger::unreadable(&error))
    };
    context.ask(Instant::now() + LOOK, "no reply to a look into the ledger", look).await
}

/// What a message is called in MongoDB's logs.
type Name = (MessageId, Option<TraceId>);

/// Sends the commands. The result names each message that is settled: written, or refused for good reason of its own; `refused`
/// gets those that may still pass.
async fn write(
    means: Means<'_>,
    writes: &[(Name, EntryUpdate<'_>)],
    refused: &mut HashMap<MessageId, Failure>,
) -> Result<HashMap<MessageId, Result<(), Failure>>, Failure> {
    let mut results = HashMap::new();
    for part in writes.chunks(STATEMENTS) {
        let updates: Vec<EntryUpdate<'_>> = part.iter().map(|(_, update)| *update).collect();
        let named = |_| means.clients.about(part.iter().map(|(name, _)| *name));
        let clients = means.context.map_or_else(|| means.clients.clone(), named);
        let written = clients.update(&updates).await?;
        if let Some(failure) = written.refused.values().find(|failure| failure.class.is_the_sinks()) {
            return Err(failure.clone());
        }
        // The count says only that some entry was not as read: others work on the same ones. Each is asked for its mark, which is
        // cheaper than to plan all of them again.
        let carried = match written.all_changed {
            true => HashSet::new(),
            false => {
                if let Some(context) = means.context {
                    context.turns.lost_race();
                }
                clients.carried(&updates).await?
            }
        };
        for (index, ((id, _), _)) in part.iter().enumerate() {
            match written.refused.get(&index) {
                // Moved or raced: the next round looks again. The last round's failure is counted.
                Some(failure) if failure.class == FailureClass::Transient => {
                    refused.insert(*id, failure.clone());
                }
                Some(failure) => drop(results.insert(*id, Err(failure.clone()))),
                None if written.all_changed || carried.contains(&index) => {
                    drop(results.insert(*id, Ok(())));
                }
                None => {}
            }
        }
    }
    Ok(results)
}
