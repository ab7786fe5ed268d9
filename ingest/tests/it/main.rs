//! The tests of ingest against real servers: one binary, one module per promise. Run by `deploy/dev test`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers too"
)]
#![allow(clippy::disallowed_methods, reason = "tests ask Postgres itself, not a pooler")]

mod batches;
mod confidential;
mod crash;
mod debt_updates;
mod emails;
mod group_commit;
mod harness;
mod hostile;
mod interface;
mod keys;
mod limits;
mod outages;
mod payloads;
mod pgbouncer;
mod program;
mod shutdown;
mod signatures;
mod systemd;
