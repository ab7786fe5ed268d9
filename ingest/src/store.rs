//! What stands between a request and Postgres: the pool, the time limits, and a task per commit.
//!
//! hyper drops a handler when its client hangs up, and a handler's time may end before a commit does: neither cancels the
//! commit.

use crate::{
    commit::{self, Answer, AnswerKind, CommitError, CommitLimits, CommitRequest},
    config::Config,
    poke::Poker,
    problem::Problem,
    request_body::HeldBody,
    status,
};
use deadpool_postgres::{Object, Pool, PoolError, TimeoutType};
use serde_json::Value;
use shared::{
    message::EmailId,
    postgres::{self, PostgresError},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// After it a commit that Postgres does not answer is given up, with its connection; its outcome is unknown. Longer than any
/// handler waits, so that a slow commit can still end well for the sender's next try.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The way to Postgres.
#[derive(Debug)]
pub struct Store {
    pool: Pool,
    /// Why the last new connection failed; None when it did not.
    failing: Mutex<Option<String>>,
    pool_wait: Duration,
    handler_timeout: Duration,
    commit_limits: CommitLimits,
    commits: TaskTracker,
    poker: Poker,
}

impl Store {
    /// Builds the pool; does not touch the network.
    ///
    /// # Errors
    /// [`PostgresError::Url`].
    pub fn new(config: &Config, poker: Poker) -> Result<Arc<Store>, PostgresError> {
        let url = config.database_url.expose();
        Ok(Arc::new(Store {
            pool: postgres::pool(url, "ingest", config.pool_size, config.pool_wait)?,
            failing: Mutex::default(),
            pool_wait: config.pool_wait,
            handler_timeout: config.handler_timeout,
            commit_limits: CommitLimits { lock_wait: config.lock_wait, key_lifetime: config.key_lifetime },
            commits: TaskTracker::new(),
            poker,
        }))
    }

    /// Ends when no commit is running any more, those whose client has left included. For the end of the program.
    pub async fn all_committed(&self) {
        self.commits.close();
        self.commits.wait().await;
    }

    /// Commits in a task of its own and waits for it as long as a handler may.
    ///
    /// # Errors
    /// [`Problem::KeyReused`], [`Problem::RivalInFlight`], [`Problem::Overloaded`], [`Problem::Unavailable`],
    /// [`Problem::OutcomeUnknown`], [`Problem::Internal`].
    pub async fn store(self: &Arc<Store>, request: CommitRequest, held: HeldBody) -> Result<Answer, Problem> {
        let store = self.clone();
        let task = self.commits.spawn(async move {
            let answer = store.commit(&request).await;
            drop(held); // its share of the budget is free only now
            answer
        });
        match timeout(self.handler_timeout, task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::error!(panicked = error.is_panic(), "a commit task died");
                Err(Problem::Internal)
            }
            Err(_) => Err(Problem::OutcomeUnknown),
        }
    }

    async fn commit(self: &Arc<Store>, request: &CommitRequest) -> Result<Answer, Problem> {
        let client = self.client().await?;
        let started = Instant::now();
        let Ok(result) = timeout(COMMIT_TIMEOUT, commit::commit(&client, request, self.commit_limits)).await
        else {
            // Its answer may still come: nobody else may use this connection.
            drop(Object::take(client));
            tracing::warn!("Postgres did not answer a commit; its outcome is unknown");
            return Err(Problem::OutcomeUnknown);
        };
        metrics::histogram!("ingest_commit_seconds").record(started.elapsed().as_secs_f64());
        match result {
            Ok(answer) => {
                if answer.kind == AnswerKind::Accepted {
                    self.poker.poke();
                }
                Ok(answer)
            }
            Err(CommitError::Mismatch) => Err(Problem::KeyReused),
            Err(CommitError::RivalInFlight) => Err(Problem::RivalInFlight),
            Err(error @ CommitError::Unavailable(_)) => {
                tracing::warn!(%error, "not stored, or unknown whether stored; the sender is asked to repeat");
                Err(Problem::OutcomeUnknown)
            }
            Err(error @ CommitError::Refused(_)) => {
                tracing::error!(%error, source = request.source, "a request could not be stored");
                Err(Problem::Internal)
            }
        }
    }

    /// A connection, within the pool wait even if Postgres is a black hole.
    async fn client(self: &Arc<Store>) -> Result<Object, Problem> {
        let store = self.clone();
        let mut getting = Box::pin(async move {
            let got = store.pool.get().await;
            store.note(&got);
            got
        });
        match timeout(self.pool_wait, &mut getting).await {
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
            Ok(client) if Object::metrics(client).recycle_count > 0 => return,
            Err(PoolError::Timeout(TimeoutType::Wait)) => return,
            Ok(_) => None,
            Err(error) => Some(postgres::pool_reason(error)),
        };
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = reason.as_ref().filter(|_| *failing != reason) {
            tracing::warn!(reason, "no connection to Postgres; senders are asked to repeat");
        }
        *failing = reason;
    }

    /// Where a mail stands.
    ///
    /// # Errors
    /// [`Problem::UnknownEmail`], [`Problem::Overloaded`], [`Problem::Unavailable`].
    pub async fn status(self: &Arc<Store>, id: EmailId) -> Result<Value, Problem> {
        let client = self.client().await?;
        let Ok(found) = timeout(self.handler_timeout, status::status(&client, id)).await else {
            drop(Object::take(client));
            return Err(Problem::Unavailable);
        };
        found
            .map_err(|error| {
                tracing::warn!(reason = postgres::reason(&error), "cannot read where a mail stands");
                Problem::Unavailable
            })?
            .ok_or(Problem::UnknownEmail)
    }
}
