//! Putting a message into the outbox: the only insert into `outbox_messages`, and the poke that wakes the relays.
//!
//! Both programs enqueue inside one larger statement (with the mail, with the finish of the step before), so the insert is a
//! piece of SQL that they build in, and never a transaction of its own.

use crate::message::Operation;

/// The insert, to be followed by a `select` of these columns in this order (or `values`), and by [`ONCE`] where the same message
/// may already be there.
pub const INSERT: &str = "insert into outbox_messages (aggregate_type, aggregate_id, operation, payload, idempotency_key, traceparent)";

/// A message that is already there stays as it is: enqueuing twice is enqueuing once.
pub const ONCE: &str = "on conflict (idempotency_key) do nothing";

/// The traceparent of a message that a person or the reconciliation makes about a mail, whose id is the SQL expression `mail`: that of
/// the mail's first message, as long as it is kept. By the unique index on `idempotency_key`.
#[must_use]
pub fn trace_of_mail(mail: &str) -> String {
    let firsts = [Operation::EmailFetch, Operation::EmailExtraction, Operation::CreditorDebtUpdate];
    let keys = firsts.map(|operation| format!("'{}:' || {mail} || ':0'", operation.name())).join(", ");
    format!("(select traceparent from outbox_messages where idempotency_key in ({keys}) order by id limit 1)")
}

/// The channel that relays LISTEN on. A poke is a hint: relays poll anyway.
pub const CHANNEL: &str = "outbox_messages";

/// Wakes the relays. Runs outside any transaction, after the commit: NOTIFY inside one takes a database-wide lock at commit.
pub const POKE: &str = "notify outbox_messages";
