//! The pool of connections to Postgres, and how long anybody waits for it.
//!
//! A Postgres that refuses connections answers quickly by itself. One that is silent (frozen, or behind a broken network) would hold
//! each request for all of its time: [`Database::watch`] finds that out for all of them, and everybody is told at once until it answers again.

use crate::{config::Config, problem::Problem, telemetry::Full};
use deadpool_postgres::{PoolError, TimeoutType};
use shared::{
    admin::{Readiness, measure_pool},
    postgres::{self, Connection, Pool, PostgresError},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// The pool's own wait ends earlier than ours by this, so that a full pool is told from a Postgres that does not answer.
const LATER: Duration = Duration::from_millis(50);
/// Between two looks at Postgres.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks at one that is silent.
const SILENT_INTERVAL: Duration = Duration::from_millis(50);
/// A Postgres that has not answered a look for so long is silent. Together with the interval it is less than a handler has.
const SILENCE: Duration = Duration::from_millis(2500);
/// A statement that has run for so long is cancelled, with its connection. Long after every handler has given up: until then a slow
/// commit can still end well for the sender's next try, and its connection counts against the pool.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// After the handlers have given up, workers leave a commit to itself and take the next.
const WORKER_MARGIN: Duration = Duration::from_secs(1);

/// Of the pool: connections by state, their limit, and who waits.
const POOL_GAUGES: [&str; 3] =
    ["ingest_pool_connections", "ingest_pool_connections_limit", "ingest_pool_waiting"];

/// The pool.
#[derive(Debug)]
pub struct Database {
    url: String,
    pool: Pool,
    pool_wait: Duration,
    worker_wait: Duration,
    /// Why the last new connection failed; None when it did not.
    failing: Mutex<Option<String>>,
    /// Set by the watch alone.
    silent: watch::Sender<bool>,
}

impl Database {
    /// Builds the pool; does not touch the network.
    ///
    /// # Errors
    /// [`PostgresError::Url`].
    pub fn over(config: &Config) -> Result<Arc<Database>, PostgresError> {
        let (url, limits) = (config.database_url.expose(), &config.limits);
        Ok(Arc::new(Database {
            url: url.to_owned(),
            pool: postgres::pool(url, "ingest", limits.pool_size, limits.pool_wait)?,
            pool_wait: limits.pool_wait,
            worker_wait: limits.handler_timeout + WORKER_MARGIN,
            failing: Mutex::default(),
            silent: watch::Sender::new(false),
        }))
    }

    /// Whether it is known that Postgres answers nobody.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        *self.silent.borrow()
    }

    /// A connection, within the pool wait even if Postgres is a black hole.
    ///
    /// # Errors
    /// [`Problem::Overloaded`], [`Problem::Unavailable`].
    pub async fn client(self: &Arc<Database>) -> Result<Connection, Problem> {
        if self.is_silent() {
            return Err(Problem::Unavailable);
        }
        let database = self.clone();
        let mut getting = Box::pin(async move {
            let got = database.pool.get().await;
            database.note(&got);
            got
        });
        match timeout(self.pool_wait + LATER, &mut getting).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(PoolError::Timeout(TimeoutType::Wait))) => Err(Full::Pool.shed()),
            Ok(Err(
                PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle)
                | PoolError::Backend(_)
                | PoolError::Closed
                | PoolError::NoRuntimeSpecified
                | PoolError::PostCreateHook(_),
            )) => Err(Problem::Unavailable),
            Err(_) => {
                // Goes on without us and ends in the pool: were it cancelled, a Postgres that needs longer to take a connection
                // would never give one.
                tokio::spawn(getting);
                Err(Problem::Unavailable)
            }
        }
    }

    /// Tells the metrics how the pool is used.
    pub fn measure(&self) {
        measure_pool(&self.pool, POOL_GAUGES);
    }

    /// Ends when it is known that Postgres answers nobody.
    pub async fn silence(&self) {
        let _ = self.silent.subscribe().wait_for(|silent| *silent).await; // the sender lives as long as we do
    }

    /// Waits for `work`, but not longer than anybody waits for its answer; it goes on without us then.
    pub async fn wait_for<T>(&self, work: JoinHandle<T>) -> Option<Result<T, JoinError>> {
        tokio::select! {
            end = work => Some(end),
            () = self.silence() => None,
            () = sleep(self.worker_wait) => None,
        }
    }

    /// Looks again and again whether Postgres answers and has our schema, for readiness, and so that nobody else has to find out.
    pub async fn watch(self: Arc<Database>, readiness: Readiness, end: CancellationToken) {
        let looks = async {
            let mut client = None;
            loop {
                let answer = timeout(SILENCE, look(&self.url, &mut client)).await;
                let is_silent = answer.is_err();
                if !self.silent.send_replace(is_silent) && is_silent {
                    self.pool.retain(|_, _| false); // the idle ones hear nothing either, perhaps never again
                }
                readiness.set("postgres", answer.unwrap_or_else(|_| Err("Postgres does not answer".into())));
                sleep(if is_silent { SILENT_INTERVAL } else { LOOK_INTERVAL }).await;
            }
        };
        end.run_until_cancelled(looks).await;
    }

    /// Logs a failure to connect once, until its reason changes or a new connection succeeds. A full pool is no such failure.
    fn note(&self, got: &Result<Connection, PoolError>) {
        let reason = match got {
            Err(PoolError::Timeout(TimeoutType::Wait)) => return,
            Ok(client) if Connection::metrics(client).recycle_count > 0 => return, // not a new one
            Ok(_) => None,
            Err(error) => Some(postgres::pool_reason(error)),
        };
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = reason.as_ref().filter(|_| *failing != reason) {
            tracing::warn!(reason, "no connection to Postgres; senders are asked to repeat");
        }
        *failing = reason;
    }
}

/// Whether Postgres has our schema. Its connection is kept only while all is well.
async fn look(url: &str, client: &mut Option<tokio_postgres::Client>) -> Result<(), String> {
    let connected = match client.take().filter(|client| !client.is_closed()) {
        Some(connected) => connected,
        None => postgres::connect(url, "ingest-readiness").await.map_err(|error| error.to_string())?,
    };
    postgres::check_schema(&connected).await?;
    *client = Some(connected);
    Ok(())
}

/// The statement's answer; None after far too long, and then the connection has to be abandoned.
pub async fn answer<T>(asking: impl Future<Output = T>) -> Option<T> {
    timeout(STATEMENT_TIMEOUT, asking).await.ok()
}
