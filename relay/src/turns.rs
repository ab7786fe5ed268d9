//! Takes turns with other workers while their batches mean the same entries.
//!
//! A batch that finds an entry changed between its look and its command has to look again, which costs more than waiting for the
//! other. So a worker that has lost a race applies large batches only in its turn for a while. A courtesy between those who do so:
//! who does not get a turn soon goes on without it, and what keeps the amounts right is the fence.

use shared::{
    postgres::{AdvisoryLock, abandon},
    postgres::{Connection, Pool},
};
use std::{
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// So long after a lost race.
const WHILE: Duration = Duration::from_secs(5);
/// Smaller batches lose too little to wait for anybody, and are applied side by side.
pub const LARGE: usize = 100;
/// A transaction-level lock: PgBouncer knows no other. Who has it holds neither a snapshot nor a transaction id, who waits for it
/// a snapshot for a second at most. A turn of a process that is stopped in its middle ends by itself, soon after any apply would.
static TAKE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "begin; set local lock_timeout = '1s'; set local idle_in_transaction_session_timeout = '10s';
select pg_advisory_xact_lock({})",
        AdvisoryLock::Turn.number()
    )
});
/// For the taking, when Postgres does not even answer that it is too late.
const TAKE_TIMEOUT: Duration = Duration::from_millis(1500);
/// For the end of a turn.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// Whether turns are taken at present.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    until: Arc<Mutex<Option<Instant>>>,
}

impl Turns {
    /// An entry was not as it had been read.
    pub fn lost_race(&self) {
        self.set(Some(Instant::now() + WHILE));
    }

    /// Does the work of a batch of so many messages, in turn if that is called for.
    pub async fn in_turn<T>(&self, pool: &Pool, messages: usize, work: impl Future<Output = T>) -> T {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if messages < LARGE || until.is_none_or(|until| until < Instant::now()) {
            return work.await;
        }
        let turn = self.take(pool).await;
        let done = work.await;
        if let Some(connection) = turn {
            end(connection).await;
        }
        done
    }

    async fn take(&self, pool: &Pool) -> Option<Connection> {
        let connection = pool.get().await.ok()?;
        match timeout(TAKE_TIMEOUT, connection.batch_execute(&TAKE)).await {
            Ok(Ok(())) => return Some(connection),
            Ok(Err(_)) => end(connection).await,
            Err(_) => abandon(connection).await,
        }
        self.set(None);
        None
    }

    fn set(&self, until: Option<Instant>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// A connection never goes back into the pool with an open transaction.
async fn end(connection: Connection) {
    if !matches!(timeout(END_TIMEOUT, connection.batch_execute("rollback")).await, Ok(Ok(()))) {
        abandon(connection).await;
    }
}
