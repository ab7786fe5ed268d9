//! What only tests and benches use: real servers, isolated per test.
//!
//! - [`Database`]: a migrated Postgres database of its own
//! - [`PostgresServer`]: a Postgres server of its own, to be crashed, frozen and killed; [`SmallDisk`]: to run full
//! - [`MongoDatabase`]: a MongoDB database of its own
//! - [`ReplicaSet`]: MongoDB servers of its own, to be stopped, frozen and killed
//! - [`attack`]: hostile HTTP clients
//! - [`report`]: what benches print
//! - [`PgBouncer`]: a pooler before a Postgres; [`Authority`]: certificates
//! - [`Wire`]: a TCP proxy before any of them, to be held, cut and mended
//!
//! The servers come from `DATABASE_URL` and `MONGODB_URL`, own ones from the programs `MONGOD` and
//! `PGBOUNCER` and the folder `POSTGRES_BIN`; `deploy/dev test` sets all five. A
//! missing server is a failure, never a skip.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot have its servers has to fail loudly"
)]
#![allow(clippy::disallowed_methods, reason = "tests ask Postgres itself, not a pooler")]

pub mod attack;
mod certificates;
mod mongo;
mod mongod;
mod older_schema;
mod pgbouncer;
mod postgres;
mod postgres_server;
pub mod report;
mod small_disk;
mod wire;

pub use certificates::Authority;
pub use mongo::MongoDatabase;
pub use mongod::{Mongod, ReplicaSet};
pub use pgbouncer::PgBouncer;
pub use postgres::{Database, url_as};
pub use postgres_server::PostgresServer;
pub use small_disk::SmallDisk;
pub use wire::{HoldPoint, Pace, Wire};

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Below the ports that systems give to outgoing connections: else one of those could take a port while its server is stopped.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A name that no other test, process or earlier run has.
fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis());
    format!("test_{now}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A port of 127.0.0.1 that nobody listens on now.
#[must_use]
pub fn free_port() -> u16 {
    let random = RandomState::new().build_hasher().finish();
    let from = usize::try_from(random % 12_000).unwrap_or(0);
    let mut ports = PORTS.cycle().skip(from).take(PORTS.len());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

fn server_url(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run the tests by `deploy/dev test`"))
}

/// Runs a future to its end from `drop`, where the test's own runtime cannot be entered again.
fn block_on_other_thread<F: Future<Output = ()> + Send + 'static>(future: F) {
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime to clean up with").block_on(future);
    });
    let _ = thread.join(); // a failed clean-up leaves a database behind and harms no other test
}
