//! What both programs need, and nothing else: `ingest -> shared <- relay`.
//!
//! - [`message`]: operations, payloads, ids, the stamp
//! - [`outbox`]: the only insert into `outbox_messages`, and the poke
//! - [`idempotency_key`][]: `generate_idempotency_key`
//! - [`money`]: exact amounts
//! - [`postgres`]: pool, migrations, transient errors; [`columns`]: rows as parameters
//! - [`http`]: the accept loop; [`admin`]: liveness, readiness, metrics
//! - [`process`]: logs, secrets, signals; [`trace`]: trace context; [`bearer`]: tokens

pub mod admin;
pub mod bearer;
pub mod columns;
pub mod http;
pub mod idempotency_key;
pub mod message;
pub mod money;
pub mod outbox;
pub mod postgres;
pub mod process;
pub mod trace;
