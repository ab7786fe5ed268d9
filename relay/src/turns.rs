//! Takes turns with other workers while their batches mean the same entries.
//!
//! A batch that finds an entry changed between its look and its command has to look again, which costs more than waiting for the
//! other. So after a lost race large batches are applied one after the other for a while, in all processes. Only a courtesy: who
//! does not get his turn soon goes on without it, and what keeps the amounts right is the fence.

use deadpool_postgres::{Client as Connection, Pool, Transaction};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So long after a lost race.
const WHILE: Duration = Duration::from_secs(5);
/// Smaller batches lose too little to wait for anybody.
const LARGE: usize = 100;
/// By a transaction-level lock: PgBouncer knows no other. The transaction has neither a snapshot nor an id, so it holds nothing
/// back. Waits at most for some batches of others; whoever is stopped in the middle of his turn holds nobody up for longer. The
/// number only has to differ from other locks in the same database.
const TAKE: &str = "set local lock_timeout = '1s'; select pg_advisory_xact_lock(7355608140)";

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

    /// The connection for a turn, if a batch of so many messages should take one.
    pub async fn connection(&self, pool: &Pool, messages: usize) -> Option<Connection> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if messages < LARGE || until.is_none_or(|until| until < Instant::now()) {
            return None;
        }
        pool.get().await.ok()
    }

    /// Waits for the turn; it ends with the transaction. None = go on without.
    pub async fn take<'a>(&self, connection: &'a mut Connection) -> Option<Transaction<'a>> {
        let transaction = connection.transaction().await.ok()?;
        match transaction.batch_execute(TAKE).await {
            Ok(()) => Some(transaction),
            Err(_) => {
                self.set(None);
                None
            }
        }
    }

    fn set(&self, until: Option<Instant>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}
