//! What a round decides about each message, from what MongoDB and the ledger said: pure, nothing here waits for anybody.

use crate::{
    client::{Client, Entry, StoredAmount},
    ledger::LedgerMark,
    matching::{self, ClientIndex, ClientKeys, Match},
    mongo::Found,
    outcome::{Failure, FailureClass, Outcome},
    write_guard::WriteGuard,
};
use serde_json::json;
use shared::{
    message::{CreditorDebtUpdate, Expected, MessageId, Origin},
    money::Amount,
    trace::TraceId,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

/// The ledger's marks by client id and entry key.
pub(super) type Marks = HashMap<(String, String), LedgerMark>;

/// An update that is still to be carried out.
pub(crate) struct Open {
    /// Its message, or whatever tells it from the others of its round.
    pub(crate) id: MessageId,
    pub(crate) trace_id: Option<TraceId>,
    pub(crate) update: CreditorDebtUpdate,
    pub(super) keys: ClientKeys,
    /// Sent in an earlier round: its stamp in the entry is this attempt's doing.
    pub(super) sent: bool,
    /// Its entry as the last round read it.
    pub(super) seen: Option<Entry>,
    /// Whether that was another one than the round before read.
    pub(super) raced: bool,
    /// Why the server refused it in the last round.
    pub(super) refused: Option<Failure>,
}

impl Open {
    pub(crate) fn new(id: MessageId, trace_id: Option<TraceId>, update: CreditorDebtUpdate) -> Open {
        let keys = matching::client_keys(&update);
        Open { id, trace_id, update, keys, sent: false, seen: None, raced: false, refused: None }
    }

    /// Equal for messages that name their client alike.
    pub(super) fn client_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self.keys.aktenzeichen.first() {
            Some(number) => number.hash(&mut hasher),
            None => self.keys.names.hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// Where a message belongs and what its entry holds.
pub(super) struct Target<'a> {
    pub(super) found: &'a Found,
    pub(super) entry: &'a Entry,
    pub(super) confidence: f64,
}

/// How a message ended, before it is put into words for the finish.
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) reason: String,
    pub(crate) old_amount: Option<Amount>,
    pub(crate) confidence: Option<f64>,
    pub(crate) candidates: Vec<serde_json::Value>,
    pub(crate) ledger: Option<(String, String, Option<String>)>,
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

    /// A repair whose entry is not there any more, or cannot be told from another one.
    fn without_target() -> Verdict {
        Verdict { outcome: Outcome::StalePlan, ..Verdict::held(STALE, &[]) }
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
            candidates: vec![json!({
                "client_id": client.client_id,
                "aktenzeichen": client.aktenzeichen,
                "entries": [{ "entry_key": entry.entry_key, "name": entry.identity.names().next() }],
            })],
            ledger: carried
                .then(|| (client.client_id.clone(), entry.entry_key.clone(), client.aktenzeichen.clone())),
        }
    }
}

/// What a round decided about one message.
pub(super) enum Step {
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

const ANSWERED_LATER: &str = "the entry has a later answer than this mail, and nothing says whose it is";
const STALE: &str = "the entry is not as the plan of this repair has seen it";

fn ended(verdict: Verdict) -> Box<Step> {
    Box::new(Step::Ended(verdict))
}

/// The documents of a round, by what an update may call them and by id.
pub(super) struct Documents<'a> {
    index: ClientIndex<'a>,
    by_id: HashMap<&'a str, &'a Found>,
}

impl<'a> Documents<'a> {
    pub(super) fn new(found: &'a [Found]) -> Documents<'a> {
        Documents {
            index: ClientIndex::new(found.iter().map(|found| &found.client)),
            by_id: found.iter().map(|found| (found.client.client_id.as_str(), found)).collect(),
        }
    }
}

/// Which entry a message means, or why none.
pub(super) fn locate<'a>(documents: &Documents<'a>, message: &Open) -> Result<Target<'a>, Box<Step>> {
    let clients = documents.index.select(&message.keys);
    if message.keys.is_empty() && clients.is_empty() {
        return Err(ended(Verdict::held("the mail names neither a case number nor a client", &[])));
    }
    let otherwise_named = documents.index.otherwise_named(&message.keys);
    if clients.is_empty() && !otherwise_named.is_empty() && message.update.expected.is_none() {
        let reason = "a number of the mail is a case number, but of a client of another name";
        return Err(ended(Verdict::held(reason, &otherwise_named)));
    }
    let is_repair = message.update.expected.is_some();
    match matching::find_entry(&clients, &message.update) {
        Match::ClientMissing | Match::Unclear(_) if is_repair => Err(ended(Verdict::without_target())),
        Match::Entry(client, entry, confidence) => {
            let found = documents.by_id.get(client.client_id.as_str());
            found.map(|found| Target { found, entry, confidence }).ok_or_else(|| Box::new(Step::Coalesced))
        }
        // Who named the client has to see that it is not there, and can name another: waiting would hide a slip of the pen for days.
        Match::ClientMissing if message.update.decided_by.is_some() => {
            Err(ended(Verdict::held("the client that a person decided on is not in MongoDB", &[])))
        }
        Match::ClientMissing => {
            Err(Box::new(Step::Failed(Failure::new(FailureClass::TargetMissing, matching::CLIENT_MISSING))))
        }
        Match::Unclear(reason) => Err(ended(Verdict::held(reason, &clients))),
    }
}

/// Decides every message: stale ones end (before the guard: a superseded mail never bothers a person), the others of one entry go
/// through the guard in the order of their stamps as if they were written one after the other, and the last that passes is written.
pub(super) fn plan<'a>(
    guard: WriteGuard,
    open: &[Open],
    targets: Vec<Result<Target<'a>, Box<Step>>>,
    marks: &Marks,
) -> Vec<(Option<Target<'a>>, Step)> {
    let mut steps: Vec<(Option<Target<'a>>, Step)> = Vec::new();
    let mut groups: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (index, (message, target)) in open.iter().zip(targets).enumerate() {
        steps.push(match target {
            Err(step) => (None, *step),
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
        guard_in_order(guard, open, &mut steps, &group, marks);
    }
    steps
}

/// The verdict on a message that the entry, or the ledger where the entry's mark is missing, is already past; None = it may pass.
fn stale(message: &Open, target: &Target<'_>, marks: &Marks) -> Option<Verdict> {
    let update = &message.update;
    if let Some(expected) = &update.expected {
        return stale_repair(message, target, expected, marks);
    }
    let key = || (target.found.client.client_id.clone(), target.entry.entry_key.clone());
    let (stamp, email_id, amount, previous) = match &target.entry.fence {
        Some(fence) => (fence.stamp.clone(), fence.email_id, target.entry.stored.known(), fence.previous),
        None => marks.get(&key()).map(|mark| (mark.stamp.to_string(), mark.email_id, mark.amount, None))?,
    };
    if gives_back(message, target, marks) {
        return None;
    }
    let own = update.stamp.to_string();
    if own < stamp {
        return Some(Verdict::at(target, Outcome::Superseded, "something newer is stored"));
    }
    if own > stamp {
        return None;
    }
    if email_id == update.email_id && amount == update.new_debt_amount {
        let (outcome, reason) = match message.sent {
            true => (Outcome::Applied, "written"),
            false => (Outcome::Already, "this update is stored already"),
        };
        // The entry holds our own amount by now; what was there before stands in our mark.
        return Some(Verdict { old_amount: previous, ..Verdict::at(target, outcome, reason) });
    }
    Some(Verdict::at(target, Outcome::HeldForReview, "another amount of the same stamp is stored"))
}

/// Whether a replay brings back an amount that the ledger knows to have been there, and that somebody has rewritten without our mark.
/// Such an amount has been through the guard already. A mail's own repeat leaves that to the reconciliation.
fn gives_back(message: &Open, target: &Target<'_>, marks: &Marks) -> bool {
    let (update, entry) = (&message.update, target.entry);
    let is_lost = entry.fence.is_none() && entry.stored.known() != update.new_debt_amount;
    if update.origin != Origin::Replay || !is_lost {
        return false;
    }
    let key = (target.found.client.client_id.clone(), entry.entry_key.clone());
    marks.get(&key).is_some_and(|mark| {
        (mark.stamp, mark.email_id, mark.amount) == (update.stamp, update.email_id, update.new_debt_amount)
    })
}

/// The verdict on a repair: written, by this attempt or another one, or not as its plan has seen entry and ledger. The ledger is what
/// the repair is made from, so it only counts where it has gone on.
fn stale_repair(message: &Open, target: &Target<'_>, expected: &Expected, marks: &Marks) -> Option<Verdict> {
    let (update, entry) = (&message.update, target.entry);
    let stamp = update.stamp.to_string();
    let is_there =
        entry.fence.as_ref().is_some_and(|fence| fence.stamp == stamp && fence.email_id == update.email_id)
            && entry.stored.known() == update.new_debt_amount;
    if is_there {
        let (outcome, reason) = if message.sent {
            (Outcome::Applied, "repaired")
        } else {
            (Outcome::Already, "this is stored already")
        };
        return Some(Verdict { old_amount: expected.amount, ..Verdict::at(target, outcome, reason) });
    }
    let seen = entry.fence.as_ref().map(|fence| fence.stamp.as_str());
    let is_as_seen = seen == expected.stamp.as_deref()
        && entry.stored != StoredAmount::Unreadable
        && entry.stored.known() == expected.amount;
    let key = (target.found.client.client_id.clone(), target.entry.entry_key.clone());
    let is_overtaken = marks.get(&key).is_some_and(|mark| mark.stamp > update.stamp);
    (!is_as_seen || is_overtaken).then(|| Verdict::at(target, Outcome::StalePlan, STALE))
}

/// Whether an entry without our mark shows a later answer than this mail, and another amount. Neither the fence nor the ledger tells:
/// somebody has entered it, or a mail that Postgres has lost since. In nobody's way who has decided, nor where the amount is right.
fn is_answered_later(message: &Open, entry: &Entry) -> bool {
    let stored = entry.stored.known();
    entry.fence.is_none()
        && entry.answered_at.is_some_and(|at| at > message.update.received_at)
        && stored.is_some()
        && stored != message.update.new_debt_amount
}

fn guard_in_order(
    guard: WriteGuard,
    open: &[Open],
    steps: &mut [(Option<Target<'_>>, Step)],
    group: &[usize],
    marks: &Marks,
) {
    let mut passed: Vec<(usize, MessageId, Amount)> = Vec::new();
    let mut effective = None;
    let mut last_stamp = None;
    for &index in group {
        let (Some(message), Some((Some(target), step))) = (open.get(index), steps.get_mut(index)) else {
            continue;
        };
        let update = &message.update;
        if last_stamp == Some(update.stamp) {
            continue; // the next round compares it with what the other has written
        }
        let stored = effective.unwrap_or(target.entry.stored);
        // A decision and a repair have been thought about already, and what is given back has been through here before.
        let decided = update.decided_by.is_some()
            || update.origin == Origin::Repair
            || gives_back(message, target, marks);
        let checked = match &update.hold {
            Some(reason) if !decided => Err(reason.clone()),
            _ if !decided && is_answered_later(message, target.entry) => Err(ANSWERED_LATER.into()),
            Some(_) | None => {
                guard.check(update.new_debt_amount, update.extraction_confidence, stored, decided)
            }
        };
        match checked {
            Ok(amount) => {
                last_stamp = Some(update.stamp);
                effective = Some(StoredAmount::Known(amount));
                passed.push((index, message.id, amount));
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

/// Puts plan and results together: a written message ends, and with it the older ones of its entry.
pub(super) fn settle(
    steps: &mut Vec<(Option<Target<'_>>, Step)>,
    open: &[Open],
    mut results: HashMap<MessageId, Result<(), Failure>>,
) -> HashMap<MessageId, Result<Verdict, Failure>> {
    let mut ended = HashMap::new();
    let mut superseded = HashSet::new();
    let ids: Vec<MessageId> = open.iter().map(|message| message.id).collect();
    let mut waiting = Vec::new();
    for (id, (target, step)) in ids.into_iter().zip(std::mem::take(steps)) {
        match step {
            Step::Ended(verdict) => drop(ended.insert(id, Ok(verdict))),
            Step::Failed(failure) => drop(ended.insert(id, Err(failure))),
            Step::Coalesced => waiting.extend(target.map(|target| (id, target))),
            Step::Write { older, .. } => match (results.remove(&id), target) {
                (Some(Ok(())), Some(target)) => {
                    superseded.extend(older);
                    ended.insert(id, Ok(Verdict::at(&target, Outcome::Applied, "written")));
                }
                (Some(Err(failure)), _) => drop(ended.insert(id, Err(failure))),
                (Some(Ok(())) | None, _) => {}
            },
        }
    }
    for (id, target) in waiting {
        if superseded.contains(&id) {
            let reason = "a newer mail was written in the same batch";
            ended.insert(id, Ok(Verdict::at(&target, Outcome::Superseded, reason)));
        }
    }
    ended
}

/// What a person needs to choose from: keys to name, and names to know them by.
fn candidate(client: &Client) -> serde_json::Value {
    let entry =
        |entry: &Entry| json!({ "entry_key": entry.entry_key, "name": entry.identity.names().next() });
    let entries: Vec<_> = client.entries.iter().take(20).map(entry).collect();
    json!({ "client_id": client.client_id, "aktenzeichen": client.aktenzeichen, "entries": entries })
}

#[cfg(test)]
mod tests;
