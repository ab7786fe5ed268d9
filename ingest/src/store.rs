//! What requests ask of Postgres, within the time that a handler has.

use crate::{
    commit::{Answer, CommitRequest},
    config::Config,
    database::{Database, abandon},
    group_commit::GroupCommit,
    poke::Poker,
    problem::Problem,
    request_body::HeldBody,
    status,
};
use serde_json::Value;
use shared::{message::EmailId, postgres};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

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

    /// Hands the request to the group commit and waits for its answer as long as a handler may.
    ///
    /// # Errors
    /// [`Problem::KeyReused`], [`Problem::RivalInFlight`], [`Problem::Overloaded`], [`Problem::Unavailable`],
    /// [`Problem::OutcomeUnknown`], [`Problem::Internal`].
    pub async fn store(&self, request: CommitRequest, held: HeldBody) -> Result<Answer, Problem> {
        let answer = self.commits.submit(request, held)?;
        match timeout(self.handler_timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Problem::Internal), // its task died
            Err(_) => Err(Problem::OutcomeUnknown),
        }
    }

    /// Where a mail stands.
    ///
    /// # Errors
    /// [`Problem::UnknownEmail`], [`Problem::Overloaded`], [`Problem::Unavailable`].
    pub async fn status(&self, id: EmailId) -> Result<Value, Problem> {
        let client = self.database.client().await?;
        let asking = self.database.answer(status::status(&client, id));
        let Ok(Some(found)) = timeout(self.handler_timeout, asking).await else {
            abandon(client);
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
