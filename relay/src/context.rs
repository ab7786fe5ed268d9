//! What the operations work with: the two servers and the write guard's settings.

use crate::{
    board::Board,
    extraction::Extractor,
    mongo::Clients,
    outcome::{Failure, FailureClass},
    resend::Resend,
    smtp::Mailer,
    turns::Turns,
    write_guard::WriteGuard,
};
use shared::{
    postgres::{Connection, Pool},
    postgres::{abandon, pool_reason},
};
use std::sync::Arc;
use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock},
    time::{Instant, timeout_at},
};

/// The servers and settings of one relay.
#[derive(Debug, Clone)]
pub struct Context {
    /// Postgres.
    pub pool: Pool,
    /// MongoDB.
    pub clients: Clients,
    /// The write guard's settings.
    pub guard: WriteGuard,
    /// What reads the mails.
    pub extractor: Extractor,
    /// What sends mail to the firm, where that is configured.
    pub mailer: Option<Mailer>,
    /// Where mails are fetched whose event carried only an id, where that is configured.
    pub resend: Option<Resend>,
    /// Whose turn it is among the workers.
    pub turns: Turns,
    /// Whether nothing is written to MongoDB.
    pub is_shadow: bool,
    /// What the lanes do, and which of them must not claim.
    pub board: Board,
    in_flight: Arc<RwLock<()>>,
}

/// Held as long as messages are in flight in this process.
#[derive(Debug)]
pub enum InFlight {
    /// With others.
    Shared(OwnedRwLockReadGuard<()>),
    /// With nothing else.
    Alone(OwnedRwLockWriteGuard<()>),
}

impl Context {
    /// Prepared servers and settings.
    #[must_use]
    pub fn new(pool: Pool, clients: Clients, guard: WriteGuard) -> Context {
        Context {
            pool,
            clients,
            guard,
            extractor: Extractor::Rules,
            mailer: None,
            resend: None,
            turns: Turns::default(),
            is_shadow: false,
            board: Board::default(),
            in_flight: Arc::default(),
        }
    }

    /// Leave to have messages in flight. Waits while one runs alone.
    pub async fn in_flight(&self) -> InFlight {
        InFlight::Shared(self.in_flight.clone().read_owned().await)
    }

    /// Waits until nothing is in flight in any lane and holds the others back.
    pub async fn alone_in_flight(&self) -> InFlight {
        InFlight::Alone(self.in_flight.clone().write_owned().await)
    }

    /// A connection for a look during an apply.
    ///
    /// # Errors
    /// Postgres is away, which says nothing about the message.
    pub async fn connection(&self) -> Result<Connection, Failure> {
        let failure =
            |error| Failure::new(FailureClass::SinkDown, format!("Postgres: {}", pool_reason(&error)));
        self.pool.get().await.map_err(failure)
    }

    /// Asks Postgres something by a deadline. What is not answered then is ended, and its connection goes out of the pool: else the
    /// next user would wait for the answer, or what nobody waits for any more would still take place.
    ///
    /// # Errors
    /// Postgres is away, `late`, or the work's own.
    pub async fn ask<T>(
        &self,
        deadline: Instant,
        late: &'static str,
        work: impl AsyncFnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let late = || Failure::new(FailureClass::SinkDown, format!("Postgres: {late}"));
        let mut connection = timeout_at(deadline, self.connection()).await.map_err(|_| late())??;
        if let Ok(answer) = timeout_at(deadline, work(&mut connection)).await {
            return answer;
        }
        abandon(connection).await;
        Err(late())
    }
}
