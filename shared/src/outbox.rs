//! Putting a message into the outbox: the only insert into `outbox_messages`, and the poke that wakes the relays.
//!
//! Both programs enqueue inside one larger statement (with the mail, with the finish of the step before), so the insert is a
//! piece of SQL that they build in, and never a transaction of its own.

/// The insert, to be followed by a `select` of these columns in this order (or `values`), and by [`ONCE`] where the same message
/// may already be there.
pub const INSERT: &str = "insert into outbox_messages (aggregate_type, aggregate_id, operation, payload, idempotency_key, traceparent)";

/// A message that is already there stays as it is: enqueuing twice is enqueuing once.
pub const ONCE: &str = "on conflict (idempotency_key) do nothing";

/// The channel that relays LISTEN on. A poke is a hint: relays poll anyway.
pub const CHANNEL: &str = "outbox_messages";

/// Wakes the relays. Runs outside any transaction, after the commit: NOTIFY inside one takes a database-wide lock at commit.
pub const POKE: &str = "notify outbox_messages";
