//! Compares what the clients were told with what is in Postgres and MongoDB. Pure.
//!
//! Its model is small: a delivery that was answered by a 200 is one mail; a mail is read once, and is one debt update or none; an
//! entry holds the update of the highest stamp, and MongoDB has seen the stamps of an entry only rise. It knows nothing of how
//! the programs work, and shares no rule with them.

#[cfg(test)]
mod tests;

use crate::delivery::{Delivery, Kind};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use shared::message::EmailId;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Breach {
    /// Answered by a 200, and not there, or not carried out.
    Lost,
    /// Stored, enqueued or written more than once.
    Twice,
    /// A stamp in MongoDB was followed by a lower one.
    Backwards,
    /// Given up for good.
    Dead,
    /// Not done in time after the last fault.
    Stuck,
    /// A failure was counted, though nothing but outages went wrong.
    Counted,
    /// No 200 in time after the last fault.
    Unanswered,
    /// Another value, answer or outcome than the delivery must have.
    Wrong,
    /// A program ended though nobody ended it, or with an error.
    Ended,
    /// Memory, open files or tables that do not stay as they are in a soak.
    Grown,
}

/// All of them, for a report that shows the zeros too.
pub const BREACHES: [Breach; 10] = [
    Breach::Lost,
    Breach::Twice,
    Breach::Backwards,
    Breach::Dead,
    Breach::Stuck,
    Breach::Counted,
    Breach::Unanswered,
    Breach::Wrong,
    Breach::Ended,
    Breach::Grown,
];

/// All that a run may enqueue: what reads a mail, and what writes the amount.
const OPERATIONS: [&str; 2] = ["email_extraction", "creditor_debt_update"];

/// Each with what was seen.
pub type Breaches = Vec<(Breach, String)>;

/// What the clients know of one delivery.
#[derive(Debug, Clone)]
pub struct Sent {
    /// What was sent.
    pub delivery: Delivery,
    /// Every 200: whether it called the delivery a duplicate, and the mail's id.
    pub answers: Vec<(bool, EmailId)>,
}

/// A row of `incoming_emails`.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Its id.
    pub id: EmailId,
    /// The provider's.
    pub webhook_id: String,
    /// `processing_status/match_status/sync_status`, `-` for null.
    pub shows: String,
    /// SHA-256 of the body that it keeps.
    pub digest: Vec<u8>,
}

/// A row of `outbox_messages`.
#[derive(Debug, Clone)]
pub struct Message {
    /// Whose.
    pub email_id: EmailId,
    /// Its operation.
    pub operation: String,
    /// The outcome of a finished one; None = it waits or is dead.
    pub outcome: Option<String>,
    /// The class of a dead one's error.
    pub dead: Option<String>,
    /// Counted failures: one that waits with some waits for its time.
    pub retry_count: i32,
    /// Rows of `decisions` that name it.
    pub decisions: i64,
}

/// What an entry holds, in MongoDB or the ledger, or held once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which entry.
    pub entry: usize,
    /// Of the update.
    pub stamp: i64,
    /// Its mail.
    pub email_id: EmailId,
    /// Its amount.
    pub cents: i64,
}

/// What an entry of MongoDB tells beside its amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// As [`Delivery::fields`] has them.
    pub fields: String,
    /// What the portal shows of the answer.
    pub text: String,
}

/// Everything that is left after a run.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The clients' memory.
    pub sent: Vec<Sent>,
    /// Of Postgres.
    pub mails: Vec<Mail>,
    /// Of Postgres.
    pub messages: Vec<Message>,
    /// Of Postgres.
    pub ledger: Vec<Held>,
    /// What MongoDB holds, and tells beside it.
    pub entries: Vec<(Held, Told)>,
    /// Every change of an entry, in MongoDB's own order.
    pub history: Vec<Held>,
    /// What else was found, in MongoDB or the logs, and must not be there.
    pub strange: Vec<String>,
}

/// Everything that is not as it must be.
#[must_use]
pub fn check(evidence: &Evidence) -> Breaches {
    let mut breaches = Breaches::new();
    let sent: HashMap<String, &Sent> = evidence.sent.iter().map(|sent| (sent.delivery.id(), sent)).collect();
    let mut of_mail: HashMap<EmailId, Delivery> = HashMap::new();
    let mut mails: HashMap<&str, Vec<&Mail>> = HashMap::new();
    for mail in &evidence.mails {
        mails.entry(&mail.webhook_id).or_default().push(mail);
        match sent.get(&mail.webhook_id) {
            Some(sent) => drop(of_mail.insert(mail.id, sent.delivery)),
            None => breaches.push((Breach::Wrong, format!("mail {} was never sent", mail.id))),
        }
    }
    for sent in &evidence.sent {
        let rows = mails.get(sent.delivery.id().as_str()).map(Vec::as_slice).unwrap_or_default();
        answers(sent, rows, &mut breaches);
    }
    let mut messages: HashMap<EmailId, Vec<&Message>> = HashMap::new();
    for message in &evidence.messages {
        messages.entry(message.email_id).or_default().push(message);
    }
    for email_id in messages.keys().filter(|email_id| !of_mail.contains_key(email_id)) {
        breaches.push((Breach::Wrong, format!("a message of mail {email_id}, which is not there")));
    }
    for mail in &evidence.mails {
        let Some(delivery) = of_mail.get(&mail.id) else { continue };
        carried_out(
            mail,
            delivery,
            messages.get(&mail.id).map(Vec::as_slice).unwrap_or_default(),
            &mut breaches,
        );
    }
    breaches.extend(evidence.strange.iter().map(|strange| (Breach::Wrong, strange.clone())));
    history(evidence, &of_mail, &messages, &mut breaches);
    newest(&of_mail, evidence.entries.iter().map(|(held, _)| held), "MongoDB", &mut breaches);
    newest(&of_mail, evidence.ledger.iter(), "the ledger", &mut breaches);
    told(evidence, &of_mail, &mut breaches);
    breaches
}

/// A 200 is a mail, once, under the id that was told.
fn answers(sent: &Sent, rows: &[&Mail], breaches: &mut Breaches) {
    let id = sent.delivery.id();
    if sent.answers.is_empty() {
        breaches.push((Breach::Unanswered, format!("{id} never got its 200")));
    }
    if rows.len() > 1 {
        breaches.push((Breach::Twice, format!("{id} is stored {} times", rows.len())));
    }
    if sent.answers.iter().filter(|(is_duplicate, _)| !is_duplicate).count() > 1 {
        breaches.push((Breach::Twice, format!("{id} was accepted more than once")));
    }
    for (_, email_id) in &sent.answers {
        match rows.first() {
            None => breaches.push((Breach::Lost, format!("{id} was answered by a 200 and is not stored"))),
            Some(row) if row.id != *email_id => {
                breaches
                    .push((Breach::Wrong, format!("{id} is mail {}, and {email_id} was answered", row.id)));
            }
            Some(_) => {}
        }
    }
}

/// A stored mail is what was sent, has its messages, each once and finished as it must be, and shows it.
fn carried_out(mail: &Mail, delivery: &Delivery, messages: &[&Message], breaches: &mut Breaches) {
    let (steps, update): (&[&str], &[&str]) = match delivery.kind {
        Kind::Mail => (&["extracted"], &["applied", "already", "superseded"]),
        Kind::Update => (&[], &["applied", "already", "superseded"]),
        Kind::Unsure => (&[], &["held_for_review", "superseded"]),
        Kind::Absence => (&["not_creditor_reply"], &[]),
    };
    if mail.digest != digest(delivery) {
        breaches.push((Breach::Wrong, format!("mail {} is stored with another body", mail.id)));
    }
    for other in messages.iter().filter(|message| !OPERATIONS.contains(&message.operation.as_str())) {
        breaches.push((Breach::Wrong, format!("{} of mail {}", other.operation, mail.id)));
    }
    let [read, written] = OPERATIONS;
    let last =
        (ended(read, steps, mail, messages, breaches), ended(written, update, mail, messages, breaches));
    let shows = match last {
        (_, Some("applied" | "already" | "superseded")) => "completed/auto_matched/synced",
        (_, Some("held_for_review")) => "completed/needs_review/not_applicable",
        (Some("not_creditor_reply"), None) => "not_creditor_reply/-/not_applicable",
        _ => return, // told already
    };
    if mail.shows != shows {
        breaches
            .push((Breach::Wrong, format!("mail {} ({:?}) shows {}", mail.id, delivery.kind, mail.shows)));
    }
}

/// The outcome of the one message of this operation, if it is one of these; no message where there are no outcomes.
fn ended<'a>(
    operation: &str,
    outcomes: &[&str],
    mail: &Mail,
    messages: &[&'a Message],
    breaches: &mut Breaches,
) -> Option<&'a str> {
    let mut of_operation = messages.iter().filter(|message| message.operation == operation);
    let mut breach =
        |breach, what: &str| breaches.push((breach, format!("{operation} of mail {}: {what}", mail.id)));
    let Some(message) = of_operation.next() else {
        if !outcomes.is_empty() {
            breach(Breach::Lost, "there is no message");
        }
        return None;
    };
    if of_operation.next().is_some() {
        breach(Breach::Twice, "more than one message");
    }
    if message.retry_count > 0 {
        breach(Breach::Counted, "a failure was counted");
    }
    match (message.outcome.as_deref(), &message.dead) {
        (_, Some(class)) => breach(Breach::Dead, class),
        (None, None) => breach(Breach::Stuck, "it waits"),
        (Some(outcome), None) if !outcomes.contains(&outcome) => breach(Breach::Wrong, outcome),
        (Some(outcome), None) => {
            match (message.decisions, operation == OPERATIONS[1]) {
                (1, true) | (0, false) => {}
                (0, true) => breach(Breach::Lost, "there is no decision"),
                _ => breach(Breach::Twice, "more decisions than one"),
            }
            return Some(outcome);
        }
    }
    None
}

/// In MongoDB every update is written at most once, over lower ones only, and says what its delivery said.
fn history(
    evidence: &Evidence,
    of_mail: &HashMap<EmailId, Delivery>,
    messages: &HashMap<EmailId, Vec<&Message>>,
    breaches: &mut Breaches,
) {
    let mut highest: HashMap<usize, i64> = HashMap::new();
    let mut written: HashSet<EmailId> = HashSet::new();
    for write in &evidence.history {
        let before = highest.entry(write.entry).or_default();
        let what = format!("entry {}: the update of mail {}", write.entry, write.email_id);
        if write.stamp == *before {
            breaches.push((Breach::Twice, format!("{what} was written again")));
        } else if write.stamp < *before {
            breaches.push((Breach::Backwards, format!("{what} was written over a newer one")));
        }
        *before = write.stamp.max(*before);
        written.insert(write.email_id);
        match of_mail.get(&write.email_id) {
            Some(delivery) if *write == held(delivery, write.email_id) && delivery.is_written() => {}
            Some(_) => breaches.push((Breach::Wrong, format!("{what} is not what was sent"))),
            None => breaches.push((Breach::Wrong, format!("{what}: there is no such mail"))),
        }
    }
    for (email_id, delivery) in of_mail {
        let outcomes =
            messages.get(email_id).into_iter().flatten().filter_map(|message| message.outcome.as_deref());
        let highest = highest.get(&delivery.entry).copied().unwrap_or_default();
        for outcome in outcomes {
            let is_true = match outcome {
                "applied" | "already" => written.contains(email_id),
                "superseded" => highest > delivery.stamp(*email_id),
                _ => true,
            };
            if !is_true {
                breaches.push((
                    Breach::Lost,
                    format!("mail {email_id} is said to be {outcome}, and MongoDB never had it"),
                ));
            }
        }
    }
}

/// What an entry holds is the newest of all that was stored for it.
fn newest<'a>(
    of_mail: &HashMap<EmailId, Delivery>,
    found: impl Iterator<Item = &'a Held>,
    place: &str,
    breaches: &mut Breaches,
) {
    let mut expected: BTreeMap<usize, Held> = BTreeMap::new();
    for (email_id, delivery) in of_mail.iter().filter(|(_, delivery)| delivery.is_written()) {
        let held = held(delivery, *email_id);
        let newest = expected.entry(delivery.entry).or_insert(held);
        if newest.stamp < held.stamp {
            *newest = held;
        }
    }
    let found: HashMap<usize, Held> = found.map(|held| (held.entry, *held)).collect();
    for (entry, expected) in &expected {
        match found.get(entry) {
            Some(found) if found == expected => {}
            Some(found) if found.stamp < expected.stamp => {
                breaches.push((
                    Breach::Lost,
                    format!("entry {entry} in {place}: mail {} is missing", expected.email_id),
                ));
            }
            Some(_) => {
                breaches.push((Breach::Wrong, format!("entry {entry} in {place} holds another value")))
            }
            None => breaches.push((Breach::Lost, format!("entry {entry} in {place} holds nothing"))),
        }
    }
    for entry in found.keys().filter(|entry| !expected.contains_key(entry)) {
        breaches.push((Breach::Wrong, format!("entry {entry} in {place} holds what nobody sent")));
    }
}

/// An entry tells about the mail that it holds. Two mails of one amount are told apart by their dates.
fn told(evidence: &Evidence, of_mail: &HashMap<EmailId, Delivery>, breaches: &mut Breaches) {
    for (held, told) in &evidence.entries {
        let is_so = |delivery: &Delivery| told.fields == delivery.fields() && delivery.says(&told.text);
        if !of_mail.get(&held.email_id).is_some_and(is_so) {
            let (mail, fields) = (held.email_id, &told.fields);
            breaches.push((Breach::Wrong, format!("entry {} of mail {mail} tells {fields}", held.entry)));
        }
    }
}

fn digest(delivery: &Delivery) -> Vec<u8> {
    Sha256::digest(delivery.body(false)).to_vec()
}

fn held(delivery: &Delivery, email_id: EmailId) -> Held {
    Held { entry: delivery.entry, stamp: delivery.stamp(email_id), email_id, cents: delivery.cents() }
}
