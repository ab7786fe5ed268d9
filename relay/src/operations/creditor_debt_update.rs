//! Writes new debt amounts into creditor entries: find, match, drop the stale, guard, coalesce, one fenced update command.
//!
//! A round plans every open message from what MongoDB and the ledger say now and sends one command. If not every statement changed
//! its entry, or the outcome is unknown, the next round looks again: its own stamp in the entry means applied, a higher one
//! superseded, anything else is planned anew. So there is one code path for first try, lost race, moved entry and lost reply.

use super::{Context, done, failed, undecodable};
use crate::{
    client::{Client, Entry},
    ledger::{self, Decision, LedgerMark, LedgerRow},
    matching::{self, ClientKeys, Match},
    mongo::{EntryUpdate, Found},
    outbox::{Claim, Finished},
    outcome::{Failure, FailureClass, Outcome},
};
use serde::Deserialize;
use serde_json::json;
use shared::{
    message::{CreditorDebtUpdate, MessageId, Origin},
    money::Amount,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use tokio::time::{Instant, timeout_at};

/// Rounds of one attempt: the first, one after a lost race or an unknown outcome, one more for an entry that moved again.
const ROUNDS: usize = 3;

/// A claimed message with its decoded payload.
struct Open {
    claim: Claim,
    update: CreditorDebtUpdate,
    keys: ClientKeys,
    /// Sent in an earlier round: its stamp in the entry is this attempt's doing.
    sent: bool,
}

/// Where a message belongs and what its entry holds.
struct Target<'a> {
    found: &'a Found,
    entry: &'a Entry,
    confidence: f64,
}

/// How a message ended, before it is put into words for the finish.
struct Verdict {
    outcome: Outcome,
    reason: String,
    old_amount: Option<Amount>,
    confidence: Option<f64>,
    candidates: Vec<serde_json::Value>,
    ledger: Option<(String, String, Option<String>)>,
}

impl Verdict {
    fn held(reason: impl Into<String>, candidates: &[&Client]) -> Verdict {
        Verdict {
            outcome: Outcome::HeldForReview,
            reason: reason.into(),
            old_amount: None,
            confidence: None,
            candidates: candidates.iter().take(5).map(|client| candidate(client)).collect(),
            ledger: None,
        }
    }

    fn at(target: &Target<'_>, outcome: Outcome, reason: impl Into<String>) -> Verdict {
        let Target { found, entry, confidence } = target;
        let carried = matches!(outcome, Outcome::Applied | Outcome::Already);
        let client = &found.client;
        Verdict {
            outcome,
            reason: reason.into(),
            old_amount: entry.stored.known(),
            confidence: Some(*confidence),
            candidates: vec![json!({ "client_id": client.client_id, "entry_key": entry.entry_key })],
            ledger: carried
                .then(|| (client.client_id.clone(), entry.entry_key.clone(), client.aktenzeichen.clone())),
        }
    }
}

/// What a round decided about one message.
enum Step {
    Ended(Verdict),
    Failed(Failure),
    /// Write it; the older messages of the same entry end as superseded once it is acknowledged.
    Write {
        amount: Amount,
        older: Vec<MessageId>,
    },
    /// Waits for the newer one of its entry.
    Coalesced,
}

pub(super) async fn apply(context: &Context, claims: Vec<Claim>, deadline: Instant) -> Vec<Finished> {
    let mut finished = Vec::new();
    let mut open = Vec::new();
    for claim in claims {
        match CreditorDebtUpdate::deserialize(&claim.payload) {
            Ok(update) => {
                let keys = matching::client_keys(&update);
                open.push(Open { claim, update, keys, sent: false });
            }
            Err(error) => finished.push(undecodable(claim, &error)),
        }
    }
    let mut last = None;
    for _ in 0..ROUNDS {
        if open.is_empty() {
            return finished;
        }
        let late = |_| Err(Failure::new(FailureClass::UnknownOutcome, "the time for this attempt is over"));
        match timeout_at(deadline, round(context, &mut open)).await.unwrap_or_else(late) {
            Ok(ended) => {
                last = None;
                let mut ended: HashMap<MessageId, Result<Verdict, Failure>> = ended.into_iter().collect();
                for message in std::mem::take(&mut open) {
                    match ended.remove(&message.claim.id) {
                        Some(Ok(verdict)) => finished.push(conclude(message, verdict)),
                        Some(Err(failure)) => {
                            finished.push(failed(message.claim, failure, message.update.stamp.number()))
                        }
                        None => open.push(message),
                    }
                }
            }
            // The next round finds out what became of it; if there is none, the fence makes the repeat safe.
            Err(failure)
                if failure.class == FailureClass::UnknownOutcome
                    && open.iter().any(|message| message.sent) =>
            {
                tracing::warn!(%failure, "looking again");
                last = Some(failure);
            }
            Err(failure) => return give_up(finished, open, &failure),
        }
    }
    let moving =
        || Failure::new(FailureClass::Transient, "the entry kept changing while it was being written");
    give_up(finished, open, &last.unwrap_or_else(moving))
}

fn give_up(mut finished: Vec<Finished>, open: Vec<Open>, failure: &Failure) -> Vec<Finished> {
    finished.extend(
        open.into_iter().map(|message| failed(message.claim, failure.clone(), message.update.stamp.number())),
    );
    finished
}

/// One look and one command. Messages that are not among the returned are open still.
async fn round(
    context: &Context,
    open: &mut [Open],
) -> Result<Vec<(MessageId, Result<Verdict, Failure>)>, Failure> {
    let documents = find(context, open).await?;
    let targets: Vec<Result<Target<'_>, Step>> =
        open.iter().map(|message| locate(&documents, message)).collect();
    let marks = ledger_marks(context, &targets).await?;
    let mut steps = plan(context, open, targets, &marks);

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
    let outcome = write(context, &writes).await;
    drop(writes);
    let result = outcome.map(|results| settle(&mut steps, open, results));
    for message in open.iter_mut().filter(|message| sent.contains(&message.claim.id)) {
        message.sent = true;
    }
    result
}

/// The documents that the messages may mean: by number without collation, then by name what that left unmatched.
async fn find(context: &Context, open: &[Open]) -> Result<Vec<Found>, Failure> {
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
    let have: HashSet<String> = documents.iter().map(|found| found.client.client_id.clone()).collect();
    documents.extend(by_name.into_iter().filter(|found| !have.contains(&found.client.client_id)));
    Ok(documents)
}

/// Which entry a message means, or why none.
fn locate<'a>(documents: &'a [Found], message: &Open) -> Result<Target<'a>, Step> {
    let clients = message.keys.select(documents.iter().map(|found| &found.client));
    if message.update.new_debt_amount.is_none() {
        // Nothing to write: a person reads the mail now, whether or not the client is there already.
        return Err(Step::Ended(Verdict::held("the mail states no amount", &clients)));
    }
    if message.keys.is_empty() && clients.is_empty() {
        return Err(Step::Ended(Verdict::held("the mail names neither a case number nor a client", &[])));
    }
    match matching::find_entry(&clients, &message.update) {
        Match::Entry(client, entry, confidence) => {
            let found = documents.iter().find(|found| found.client.client_id == client.client_id);
            found.map(|found| Target { found, entry, confidence }).ok_or(Step::Coalesced)
        }
        Match::ClientMissing => Err(Step::Failed(Failure::new(
            FailureClass::TargetMissing,
            "no client of this number or name is in MongoDB",
        ))),
        Match::Unclear(reason) => Err(Step::Ended(Verdict::held(reason, &clients))),
    }
}

/// What the ledger knows of the entries whose own mark is missing: new ones, and those that the portal has rewritten.
async fn ledger_marks(
    context: &Context,
    targets: &[Result<Target<'_>, Step>],
) -> Result<HashMap<(String, String), LedgerMark>, Failure> {
    let unmarked = targets.iter().flatten().filter(|target| target.entry.fence.is_none());
    let keys: HashSet<(&str, &str)> = unmarked
        .map(|target| (target.found.client.client_id.as_str(), target.entry.entry_key.as_str()))
        .collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let unavailable = |error| Failure::new(FailureClass::SinkDown, format!("Postgres: {error}"));
    let connection = context.pool.get().await.map_err(unavailable)?;
    ledger::marks(&connection, &keys.into_iter().collect::<Vec<_>>())
        .await
        .map_err(|error| ledger::unreadable(&error))
}

/// Decides every message: stale ones end (before the guard: a superseded mail never bothers a person), the others of one entry go
/// through the guard in the order of their stamps as if they were written one after the other, and the last that passes is written.
fn plan<'a>(
    context: &Context,
    open: &[Open],
    targets: Vec<Result<Target<'a>, Step>>,
    marks: &HashMap<(String, String), LedgerMark>,
) -> Vec<(Option<Target<'a>>, Step)> {
    let mut steps: Vec<(Option<Target<'a>>, Step)> = Vec::new();
    let mut groups: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (index, (message, target)) in open.iter().zip(targets).enumerate() {
        steps.push(match target {
            Err(step) => (None, step),
            Ok(target) => match stale(message, &target, marks) {
                Some(verdict) => (Some(target), Step::Ended(verdict)),
                None => {
                    let key = (target.found.client.client_id.clone(), target.entry.entry_key.clone());
                    groups.entry(key).or_default().push(index);
                    (Some(target), Step::Coalesced)
                }
            },
        });
    }
    for mut group in groups.into_values() {
        group.sort_by_key(|index| open.get(*index).map(|message| message.update.stamp));
        guard_in_order(context, open, &mut steps, &group);
    }
    steps
}

/// The verdict on a message that the entry, or the ledger where the entry's mark is missing, is already past; None = it may pass.
fn stale(
    message: &Open,
    target: &Target<'_>,
    marks: &HashMap<(String, String), LedgerMark>,
) -> Option<Verdict> {
    let update = &message.update;
    let key = || (target.found.client.client_id.clone(), target.entry.entry_key.clone());
    let (stamp, email_id, amount) = match target.entry.fence {
        Some(fence) => (fence.stamp, fence.email_id, target.entry.stored.known()),
        None => marks.get(&key()).map(|mark| (mark.stamp, mark.email_id, mark.amount))?,
    };
    if update.stamp < stamp {
        return Some(Verdict::at(target, Outcome::Superseded, "something newer is stored"));
    }
    if update.stamp > stamp {
        return None;
    }
    if email_id == update.email_id && amount == update.new_debt_amount {
        let outcome = if message.sent { Outcome::Applied } else { Outcome::Already };
        let reason = if message.sent { "written" } else { "this update is stored already" };
        return Some(Verdict::at(target, outcome, reason));
    }
    Some(Verdict::at(target, Outcome::HeldForReview, "another amount of the same stamp is stored"))
}

fn guard_in_order(
    context: &Context,
    open: &[Open],
    steps: &mut [(Option<Target<'_>>, Step)],
    group: &[usize],
) {
    let mut passed: Vec<(usize, MessageId, Amount)> = Vec::new();
    let mut effective = None;
    for &index in group {
        let (Some(message), Some((Some(target), step))) = (open.get(index), steps.get_mut(index)) else {
            continue;
        };
        let stored = effective.unwrap_or(target.entry.stored);
        let update = &message.update;
        // A decision and a repair have been thought about already.
        let decided = update.decided_by.is_some() || update.origin == Origin::Repair;
        match context.guard.check(update.new_debt_amount, update.extraction_confidence, stored, decided) {
            Ok(amount) => {
                effective = Some(crate::client::StoredAmount::Known(amount));
                passed.push((index, message.claim.id, amount));
            }
            Err(reason) => *step = Step::Ended(Verdict::at(target, Outcome::HeldForReview, reason)),
        }
    }
    if let Some((newest, _, amount)) = passed.pop()
        && let Some((_, step)) = steps.get_mut(newest)
    {
        *step = Step::Write { amount, older: passed.into_iter().map(|(_, id, _)| id).collect() };
    }
}

/// Sends one command; where the server refuses it as a whole, halves it until the culprit is alone. The result names each message
/// that is settled: written, or refused for good reason of its own.
async fn write(
    context: &Context,
    writes: &[(MessageId, EntryUpdate<'_>)],
) -> Result<HashMap<MessageId, Result<(), Failure>>, Failure> {
    let mut results = HashMap::new();
    let mut parts = vec![writes];
    while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
        let updates: Vec<EntryUpdate<'_>> = part.iter().map(|(_, update)| *update).collect();
        match context.clients.update(&updates).await {
            Ok(written) => {
                if let Some(failure) = written.refused.values().find(|failure| failure.class.is_the_sinks()) {
                    return Err(failure.clone());
                }
                for (index, (id, _)) in part.iter().enumerate() {
                    match written.refused.get(&index) {
                        // Moved or raced: the next round looks again. The last round's failure is counted.
                        Some(failure) if failure.class == FailureClass::Transient => {}
                        Some(failure) => drop(results.insert(*id, Err(failure.clone()))),
                        None if written.all_changed => drop(results.insert(*id, Ok(()))),
                        None => {}
                    }
                }
            }
            Err(failure) if failure.class == FailureClass::Permanent && part.len() > 1 => {
                let (front, back) = part.split_at(part.len() / 2);
                parts.extend([back, front]);
            }
            Err(failure) if failure.class == FailureClass::Permanent => {
                results.extend(part.iter().map(|(id, _)| (*id, Err(failure.clone()))));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(results)
}

/// Puts plan and results together: a written message ends, and with it the older ones of its entry.
fn settle(
    steps: &mut Vec<(Option<Target<'_>>, Step)>,
    open: &[Open],
    mut results: HashMap<MessageId, Result<(), Failure>>,
) -> Vec<(MessageId, Result<Verdict, Failure>)> {
    let mut ended = Vec::new();
    let mut superseded = HashSet::new();
    let ids: Vec<MessageId> = open.iter().map(|message| message.claim.id).collect();
    let mut waiting = Vec::new();
    for (id, (target, step)) in ids.into_iter().zip(std::mem::take(steps)) {
        match step {
            Step::Ended(verdict) => ended.push((id, Ok(verdict))),
            Step::Failed(failure) => ended.push((id, Err(failure))),
            Step::Coalesced => waiting.extend(target.map(|target| (id, target))),
            Step::Write { older, .. } => match (results.remove(&id), target) {
                (Some(Ok(())), Some(target)) => {
                    superseded.extend(older);
                    ended.push((id, Ok(Verdict::at(&target, Outcome::Applied, "written"))));
                }
                (Some(Err(failure)), _) => ended.push((id, Err(failure))),
                (Some(Ok(())) | None, _) => {}
            },
        }
    }
    for (id, target) in waiting {
        if superseded.contains(&id) {
            let reason = "a newer mail was written in the same batch";
            ended.push((id, Ok(Verdict::at(&target, Outcome::Superseded, reason))));
        }
    }
    ended
}

/// Words for the finish: the row, its mail, the ledger, the decision.
fn conclude(message: Open, verdict: Verdict) -> Finished {
    let Open { claim, update, .. } = message;
    let (id, email_id, stamp) = (claim.id, update.email_id, update.stamp.number());
    let mut finished = done(claim, verdict.outcome, stamp);
    if let Some(email) = &mut finished.email {
        email.match_confidence = verdict.confidence;
    }
    if verdict.outcome == Outcome::Superseded && update.origin == Origin::Replay {
        finished.email = None; // a replay that came too late says nothing new about the mail
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

/// Keys only: names and amounts stay in MongoDB, where a person looks them up.
fn candidate(client: &Client) -> serde_json::Value {
    let keys: Vec<&str> = client.entries.iter().take(20).map(|entry| entry.entry_key.as_str()).collect();
    json!({ "client_id": client.client_id, "entry_keys": keys })
}
