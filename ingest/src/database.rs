//! The pool of connections to Postgres: how long a request waits for one, and that nobody waits for a Postgres that is away.

use crate::problem::Problem;
use deadpool_postgres::{Client, Object, Pool, PoolError, TimeoutType};
use shared::postgres::{self, PostgresError};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::timeout;

/// The pool's own wait ends earlier than ours by this, so that a full pool is told from a Postgres that does not answer.
const LATER: Duration = Duration::from_millis(50);

/// The pool.
#[derive(Debug)]
pub struct Database {
    pool: Pool,
    pool_wait: Duration,
    /// Why the last new connection failed; None when it did not.
    failing: Mutex<Option<String>>,
    /// Whether the last attempt to get a connection failed, or has not ended in time.
    away: AtomicBool,
    /// Held by who tries while it is away.
    trying: Arc<tokio::sync::Mutex<()>>,
}

impl Database {
    /// Builds the pool; does not touch the network.
    ///
    /// # Errors
    /// [`PostgresError::Url`].
    pub fn new(url: &str, pool_size: usize, pool_wait: Duration) -> Result<Arc<Database>, PostgresError> {
        Ok(Arc::new(Database {
            pool: postgres::pool(url, "ingest", pool_size, pool_wait)?,
            pool_wait,
            failing: Mutex::default(),
            away: AtomicBool::new(false),
            trying: Arc::default(),
        }))
    }

    /// A connection, within the pool wait even if Postgres is a black hole. While it is away one at a time tries, and the others
    /// are told at once.
    ///
    /// # Errors
    /// [`Problem::Overloaded`], [`Problem::Unavailable`].
    pub async fn client(self: &Arc<Database>) -> Result<Client, Problem> {
        let try_alone = || self.trying.clone().try_lock_owned().map_err(|_| Problem::Unavailable);
        let turn = if self.away.load(Relaxed) { Some(try_alone()?) } else { None };
        let database = self.clone();
        let mut getting = Box::pin(async move {
            let got = database.pool.get().await;
            database.note(&got);
            drop(turn);
            got
        });
        match timeout(self.pool_wait + LATER, &mut getting).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(PoolError::Timeout(TimeoutType::Wait))) => Err(Problem::Overloaded),
            Ok(Err(
                PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle)
                | PoolError::Backend(_)
                | PoolError::Closed
                | PoolError::NoRuntimeSpecified
                | PoolError::PostCreateHook(_),
            )) => Err(Problem::Unavailable),
            Err(_) => {
                self.away.store(true, Relaxed);
                // Goes on without us and ends in the pool: were it cancelled, a Postgres that needs longer to take a connection
                // would never give one.
                tokio::spawn(getting);
                Err(Problem::Unavailable)
            }
        }
    }

    /// Logs a failure to connect once, until its reason changes or a new connection succeeds. A full pool is no such failure.
    fn note(&self, got: &Result<Object, PoolError>) {
        let reason = match got {
            Err(PoolError::Timeout(TimeoutType::Wait)) => return,
            Ok(_) => None,
            Err(error) => Some(postgres::pool_reason(error)),
        };
        self.away.store(reason.is_some(), Relaxed);
        if got.as_ref().is_ok_and(|client| Object::metrics(client).recycle_count > 0) {
            return; // not a new one
        }
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = reason.as_ref().filter(|_| *failing != reason) {
            tracing::warn!(reason, "no connection to Postgres; senders are asked to repeat");
        }
        *failing = reason;
    }
}

/// Takes a connection out of the pool whose answer may still come: nobody else may use it.
pub fn abandon(client: Client) {
    drop(Object::take(client));
}
