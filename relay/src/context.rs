//! What the operations work with: the two servers and the write guard's settings.

use crate::{
    mongo::Clients,
    outcome::{Failure, FailureClass},
    write_guard::WriteGuard,
};
use deadpool_postgres::{Client as Connection, Pool};
use shared::postgres::pool_reason;

/// The servers and settings of one relay.
#[derive(Debug, Clone)]
pub struct Context {
    /// Postgres.
    pub pool: Pool,
    /// MongoDB.
    pub clients: Clients,
    /// The write guard's settings.
    pub guard: WriteGuard,
}

impl Context {
    /// A connection for a look during an apply.
    ///
    /// # Errors
    /// Postgres is away, which says nothing about the message.
    pub async fn connection(&self) -> Result<Connection, Failure> {
        let failure =
            |error| Failure::new(FailureClass::SinkDown, format!("Postgres: {}", pool_reason(&error)));
        self.pool.get().await.map_err(failure)
    }
}
