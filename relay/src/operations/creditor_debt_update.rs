//! Writes new debt amounts into creditor entries: find, match, drop the stale, guard, coalesce, one fenced update command.
//!
//! A round plans every open message from what MongoDB and the ledger say now and sends one command. If not every statement changed
//! its entry, or the outcome is unknown, the next round looks again: its own stamp in the entry means applied, a higher one
//! superseded, anything else is planned anew. So there is one code path for first try, lost race, moved entry and lost reply.

mod notice;
mod plan;

use crate::{
    client::Entry,
    context::Context,
    ledger::{self, Decision, LedgerRow},
    mongo::{EntryUpdate, Found},
    outbox::{Claim, Finished},
    outcome::{Failure, FailureClass, Outcome, POSTPONED, Transition},
};
use deadpool_postgres::Client as Connection;
use futures_util::future::join_all;
use plan::{Documents, Marks, Open, Step, Target, Verdict, locate, plan, settle};
use shared::message::{CreditorDebtUpdate, MessageId, Origin, ReviewCause};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// Rounds without any message ending: the first, one after a lost race or an unknown outcome, one more for an entry that moved again.
const ROUNDS: usize = 3;
/// Statements of one update command: some 500 KiB, far from the 16 MiB that a command may have.
const STATEMENTS: usize = 500;
/// A batch is carried in this many parts at once, so that the relay and MongoDB work at the same time. Messages that name
/// their client alike are in one part.
const PARTS: u64 = 2;
/// For one look into the ledger.
const LOOK: Duration = Duration::from_secs(2);

pub(super) async fn apply(context: &Context, claims: Vec<Claim>, deadline: Instant) -> Vec<Finished> {
    let mut finished = Vec::new();
    let mut parts: Vec<Vec<Open>> = (0..PARTS).map(|_| Vec::new()).collect();
    for claim in claims {
        match claim.payload::<CreditorDebtUpdate>() {
            Ok(update) if update.email_id != claim.email_id => {
                let failure =
                    Failure::new(FailureClass::Permanent, "the payload names another mail than the message");
                finished.push(claim.failed(failure, 0));
            }
            Ok(update) => {
                let open = Open::new(claim, update);
                let at = usize::try_from(open.client_hash() % PARTS).unwrap_or(0);
                if let Some(part) = parts.get_mut(at) {
                    part.push(open);
                }
            }
            Err(failure) => finished.push(claim.failed(failure, 0)),
        }
    }
    let messages = parts.iter().map(Vec::len).sum();
    let work = join_all(parts.into_iter().map(|part| carry_or_halve(context, part, deadline)));
    let carried = context.turns.in_turn(&context.pool, messages, work).await;
    // An error that we do not know, and nothing at all got through: nothing says that the messages are to blame.
    let none_through = carried.iter().all(|(ended, _)| ended.is_empty());
    let alone = none_through && carried.iter().map(|(_, failed)| failed.len()).sum::<usize>() == 1;
    for (ended, failed) in carried {
        finished.extend(ended);
        for (message, mut failure) in failed {
            if none_through && failure.class == FailureClass::Transient {
                failure = context.clients.unreachable(Failure::new(FailureClass::SinkDown, failure.text));
            }
            // A document that somebody holds in a transaction looks like a server that does not answer.
            if alone && failure.class == FailureClass::UnknownOutcome && context.clients.ping().await.is_ok()
            {
                let stamp = message.update.stamp.number();
                finished.push(message.claim.finish(Transition::Postponed(POSTPONED, failure), stamp));
                continue;
            }
            finished.push(message.claim.failed(failure, message.update.stamp.number()));
        }
    }
    finished
}

/// What the server or the driver holds against many messages may be one message's fault: halves until that one is alone. Returns
/// what ended and what failed.
async fn carry_or_halve(
    context: &Context,
    open: Vec<Open>,
    deadline: Instant,
) -> (Vec<Finished>, Vec<(Open, Failure)>) {
    let (mut finished, mut failed) = (Vec::new(), Vec::new());
    let mut parts = vec![open];
    while let Some(mut part) = parts.pop() {
        let Err(failure) = carry(context, &mut part, &mut finished, deadline).await else { continue };
        if part.len() > 1 && !failure.class.is_the_sinks() {
            let rest = part.split_off(part.len() / 2);
            parts.extend([rest, part]);
        } else {
            failed.extend(part.into_iter().map(|message| (message, failure.clone())));
        }
    }
    (finished, failed)
}

/// Round after round until nothing is open.
///
/// # Errors
/// Why what is left in `open` could not be carried out.
async fn carry(
    context: &Context,
    open: &mut Vec<Open>,
    finished: &mut Vec<Finished>,
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
            Err(last.clone().err().unwrap_or_else(|| context.clients.unreachable(failure)))
        };
        match timeout_at(deadline, round(context, open)).await.unwrap_or_else(late) {
            Ok(mut ended) => {
                last = Ok(());
                if !ended.is_empty() {
                    fruitless = 0;
                }
                for message in std::mem::take(open) {
                    match ended.remove(&message.claim.id) {
                        Some(Ok(verdict)) => {
                            finished.push(conclude(message, verdict, context.mailer.is_some()));
                        }
                        Some(Err(failure)) => {
                            finished.push(fail(message, failure, context.mailer.is_some()));
                        }
                        None => open.push(message),
                    }
                }
            }
            // The next round finds out what became of it; if there is none, the fence makes the repeat safe.
            Err(failure) if failure.class == FailureClass::UnknownOutcome && open.iter().any(|m| m.sent) => {
                tracing::warn!(%failure, "looking again");
                (last, is_unsettled) = (Err(failure), true);
            }
            Err(failure) => return Err(failure),
        }
    }
    last?;
    for mut message in std::mem::take(open) {
        finished.push(match message.refused.take() {
            // Others have changed the entry each time, or a newer message has not got through: not this one's fault. Nor is a write that
            // a primary has taken and that its majority does not show yet.
            _ if message.raced || !message.sent || is_unsettled => {
                let text = "others keep changing the entry, or MongoDB has not settled on it";
                let failure = Failure::new(FailureClass::Transient, text);
                let stamp = message.update.stamp.number();
                message.claim.finish(Transition::Postponed(POSTPONED, failure), stamp)
            }
            Some(failure) => message.claim.failed(failure, message.update.stamp.number()),
            None => {
                let text = "the entry does not take the update, although nobody changes it";
                let failure = Failure::new(FailureClass::Transient, text);
                message.claim.failed(failure, message.update.stamp.number())
            }
        });
    }
    Ok(())
}

/// One look and one command. Messages that are not among the returned are open still.
async fn round(
    context: &Context,
    open: &mut [Open],
) -> Result<HashMap<MessageId, Result<Verdict, Failure>>, Failure> {
    let found = find(context, open).await?;
    let documents = Documents::new(&found);
    let targets: Vec<Result<Target<'_>, Box<Step>>> =
        open.iter().map(|message| locate(&documents, message)).collect();
    let seen: Vec<Option<&Entry>> =
        targets.iter().map(|target| target.as_ref().ok().map(|target| target.entry)).collect();
    let marks = ledger_marks(context, &targets).await?;
    let mut steps = plan(context.guard, open, targets, &marks);

    let mut writes = Vec::new();
    for (message, (target, step)) in open.iter().zip(&steps) {
        if let (Some(target), Step::Write { amount, .. }) = (target, step) {
            let update = EntryUpdate {
                found: target.found,
                entry: target.entry,
                update: &message.update,
                amount: *amount,
            };
            writes.push((message.claim.id, update));
        }
    }
    let sent: HashSet<MessageId> = writes.iter().map(|(id, _)| *id).collect();
    let mut refused = HashMap::new();
    let outcome = write(context, &writes, &mut refused).await;
    drop(writes);
    let result = outcome.map(|results| settle(&mut steps, open, results));
    let has_ended = |id: &MessageId| result.as_ref().is_ok_and(|ended| ended.contains_key(id));
    for (message, seen) in open.iter_mut().zip(seen).filter(|(message, _)| !has_ended(&message.claim.id)) {
        message.sent |= sent.contains(&message.claim.id);
        message.raced = message.seen.as_ref().is_some_and(|before| Some(before) != seen);
        message.refused = refused.remove(&message.claim.id);
        message.seen = seen.cloned();
    }
    result
}

/// The documents that the messages may mean: by number without collation, then by name what that left unmatched. Where a person
/// has named the client, that one.
async fn find(context: &Context, open: &[Open]) -> Result<Vec<Found>, Failure> {
    let (named, open): (Vec<&Open>, Vec<&Open>) = open.iter().partition(|m| m.keys.client_id.is_some());
    let ids: HashSet<&str> = named.iter().filter_map(|m| m.keys.client_id.as_deref()).collect();
    let by_id = context.clients.find_by_ids(&ids.into_iter().collect::<Vec<_>>()).await?;
    let numbers: HashSet<&str> = open
        .iter()
        .flat_map(|m| m.keys.aktenzeichen.iter().chain(&m.keys.other_numbers))
        .map(String::as_str)
        .collect();
    let mut documents = context.clients.find_by_numbers(&numbers.into_iter().collect::<Vec<_>>()).await?;
    let known: HashSet<&str> =
        documents.iter().filter_map(|found| found.client.aktenzeichen.as_deref()).collect();
    let unmatched = open
        .iter()
        .filter(|message| !message.keys.aktenzeichen.iter().any(|number| known.contains(number.as_str())));
    let names: HashSet<&(String, String)> = unmatched.flat_map(|message| &message.keys.names).collect();
    let by_name = context.clients.find_by_names(&names.into_iter().collect::<Vec<_>>()).await?;
    let mut have: HashSet<String> = documents.iter().map(|found| found.client.client_id.clone()).collect();
    let others = by_name.into_iter().chain(by_id);
    documents.extend(others.filter(|found| have.insert(found.client.client_id.clone())));
    Ok(documents)
}

/// What the ledger knows of the entries whose own mark is missing: new ones, and those that the portal has rewritten.
async fn ledger_marks(
    context: &Context,
    targets: &[Result<Target<'_>, Box<Step>>],
) -> Result<Marks, Failure> {
    let unmarked = targets.iter().flatten().filter(|target| target.entry.fence.is_none());
    let keys: HashSet<(&str, &str)> = unmarked
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

/// Sends the commands. The result names each message that is settled: written, or refused for good reason of its own; `refused`
/// gets those that may still pass.
async fn write(
    context: &Context,
    writes: &[(MessageId, EntryUpdate<'_>)],
    refused: &mut HashMap<MessageId, Failure>,
) -> Result<HashMap<MessageId, Result<(), Failure>>, Failure> {
    let mut results = HashMap::new();
    for part in writes.chunks(STATEMENTS) {
        let updates: Vec<EntryUpdate<'_>> = part.iter().map(|(_, update)| *update).collect();
        let written = context.clients.update(&updates).await?;
        if let Some(failure) = written.refused.values().find(|failure| failure.class.is_the_sinks()) {
            return Err(failure.clone());
        }
        // The count says only that some entry was not as read: others work on the same ones. Each is asked for its mark, which is
        // cheaper than to plan all of them again.
        let carried = match written.all_changed {
            true => HashSet::new(),
            false => {
                context.turns.lost_race();
                context.clients.carried(&updates).await?
            }
        };
        for (index, (id, _)) in part.iter().enumerate() {
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

/// The end of a message that cannot be carried out now; whose client is missing, the firm is told at the first look.
fn fail(message: Open, failure: Failure, notifies: bool) -> Finished {
    let Open { claim, update, .. } = message;
    let is_first = failure.class == FailureClass::TargetMissing && claim.past.missing_for.is_none();
    let next =
        (notifies && is_first).then(|| notice::of_waiting(&claim, &update, ReviewCause::NoMatch)).flatten();
    let mut finished = claim.failed(failure, update.stamp.number());
    finished.next = next;
    finished
}

/// Words for the finish: the row, its mail, the ledger, the decision, and the letter if the firm gets letters.
fn conclude(message: Open, verdict: Verdict, notifies: bool) -> Finished {
    let Open { claim, update, .. } = message;
    let next = notifies.then(|| notice::of_verdict(&claim, &update, &verdict)).flatten();
    let (id, email_id, stamp) = (claim.id, update.email_id, update.stamp.number());
    let mut finished = claim.done(verdict.outcome, stamp);
    finished.next = next;
    if let Some(email) = &mut finished.email {
        email.match_confidence = verdict.confidence;
    }
    // A replay that came too late says nothing new about the mail, nor does a repair that found something else than it expected.
    let says_nothing = verdict.outcome == Outcome::StalePlan
        || (verdict.outcome == Outcome::Superseded && update.origin == Origin::Replay);
    if says_nothing {
        finished.email = None;
    }
    finished.ledger =
        verdict.ledger.zip(update.new_debt_amount).map(|((client_id, entry_key, aktenzeichen), amount)| {
            LedgerRow { message_id: id, email_id, client_id, entry_key, aktenzeichen, amount, stamp }
        });
    finished.decision = Some(Decision {
        message_id: id,
        email_id,
        old_amount: verdict.old_amount,
        new_amount: update.new_debt_amount,
        decision: verdict.outcome.name(),
        reason: verdict.reason,
        candidates: verdict.candidates,
        actor: update.decided_by.unwrap_or_else(|| "relay".into()),
    });
    finished
}
