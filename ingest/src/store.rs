//! What requests ask of Postgres, within the time that a handler has.

use crate::{
    commit::{Answer, CommitRequest},
    config::Config,
    database::{Database, answer},
    group_commit::GroupCommit,
    poke::Poker,
    problem::Problem,
    request_body::HeldBody,
    status,
};
use serde_json::Value;
use shared::{message::EmailId, postgres};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// For a machine that is short of everything: a restart would not help it.
const STANDSTILL_MARGIN: Duration = Duration::from_secs(30);

/// The way to Postgres.
#[derive(Debug)]
pub struct Store {
    database: Arc<Database>,
    commits: GroupCommit,
    handler_timeout: Duration,
}

impl Store {
    /// Starts the group commit; does not touch the network.
    #[must_use]
    pub fn new(config: &Config, database: Arc<Database>, poker: Poker) -> Arc<Store> {
        let commits = GroupCommit::start(config, database.clone(), poker);
        Arc::new(Store { database, commits, handler_timeout: config.limits.handler_timeout })
    }

    /// Ends when no commit is running any more, those whose client has left included. For the end of the program.
    pub async fn all_committed(&self) {
        self.commits.all_committed().await;
    }

    /// Tells, when asked now and then, whether what is to be stored is carried to Postgres.
    pub fn makes_progress(&self) -> impl FnMut() -> bool + use<> {
        self.commits.makes_progress(2 * self.handler_timeout + STANDSTILL_MARGIN)
    }

    /// Requests without an answer yet.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.commits.depth()
    }

    /// Where they are stored.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Hands the request to the group commit and waits for its answer as long as a handler may.
    ///
    /// # Errors
    /// [`Problem::KeyReused`], [`Problem::RivalInFlight`], [`Problem::Overloaded`], [`Problem::Unavailable`],
    /// [`Problem::OutcomeUnknown`], [`Problem::Internal`].
    pub async fn store(&self, request: CommitRequest, held: HeldBody) -> Result<Answer, Problem> {
        if self.database.is_silent() {
            return Err(Problem::Unavailable); // before anything could be stored
        }
        let answer = self.commits.submit(request, held)?;
        tokio::select! {
            answer = answer => answer.unwrap_or(Err(Problem::Internal)), // its task died
            () = self.database.silence() => Err(Problem::OutcomeUnknown),
            () = sleep(self.handler_timeout) => Err(Problem::OutcomeUnknown),
        }
    }

    /// Where a mail stands.
    ///
    /// # Errors
    /// [`Problem::UnknownEmail`], [`Problem::Overloaded`], [`Problem::Unavailable`].
    pub async fn status(&self, id: EmailId) -> Result<Value, Problem> {
        let client = self.database.client().await?;
        // In a task of its own: a connection counts against the pool until its statement has ended.
        let reading = tokio::spawn(async move {
            let found = answer(status::status(&client, id)).await;
            if found.is_none() {
                postgres::abandon(client).await;
            }
            found
        });
        let read = timeout(self.handler_timeout, self.database.wait_for(reading)).await;
        let Ok(Some(Ok(Some(found)))) = read else { return Err(Problem::Unavailable) };
        found
            .map_err(|error| {
                tracing::warn!(reason = postgres::reason(&error), "cannot read where a mail stands");
                Problem::Unavailable
            })?
            .ok_or(Problem::UnknownEmail)
    }
}
