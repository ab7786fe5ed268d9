//! The pool of connections, and whether their statements may be kept.
//!
//! Postgres needs three to fifteen times as long for a statement that it has to plan first, so those that are asked all day are
//! prepared once per connection. A PgBouncer in transaction mode gives each transaction another connection, where the statement's
//! name means nothing, or another process's statement: behind one, nothing is prepared.

use super::{CONNECT_TIMEOUT, PostgresError, target, tls::Tls};
use crate::columns::Parameter;
use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::{ClientWrapper, Runtime};
use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::time::timeout;
use tokio_postgres::{Client, Config, Error, Row, error::SqlState, types::ToSql};

/// A setting that is given at the start of a connection. A pooler refuses it, or swallows it; Postgres keeps it for the session.
const MARK: &str = "-c outbox.direct=on";
const IS_MARKED: &str = "select coalesce(current_setting('outbox.direct', true), '') = 'on'";

/// For a request to cancel a statement.
const CANCEL_TIMEOUT: Duration = Duration::from_millis(500);

/// A pool of connections to one Postgres.
pub type Pool = managed::Pool<Manager>;
/// One of them while it is used; goes back when it is dropped.
pub type Connection = managed::Object<Manager>;

/// Opens the pool's connections.
pub struct Manager {
    config: Config,
    tls: Tls,
    /// Once it is known, it is not asked again: it would cost two attempts for each connection.
    has_pooler: AtomicBool,
}

/// A connection to Postgres, or through a pooler.
pub struct Session {
    client: ClientWrapper,
    tls: Tls,
    keeps_statements: bool,
}

/// A pool that opens connections when they are asked for; building it does not touch the network.
///
/// # Errors
/// [`PostgresError::Url`].
pub fn pool(url: &str, application_name: &str, size: usize, wait: Duration) -> Result<Pool, PostgresError> {
    let (config, tls) = target(url, application_name)?;
    Pool::builder(Manager { config, tls, has_pooler: AtomicBool::new(false) })
        .max_size(size)
        .wait_timeout(Some(wait))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .recycle_timeout(Some(CONNECT_TIMEOUT))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| PostgresError::Url(error.to_string()))
}

impl managed::Manager for Manager {
    type Type = Session;
    type Error = Error;

    async fn create(&self) -> Result<Session, Error> {
        if !self.has_pooler.load(Ordering::Relaxed) {
            let mut marked = self.config.clone();
            let options = marked.get_options().map_or_else(|| MARK.into(), |given| format!("{given} {MARK}"));
            match self.connect(marked.options(options)).await {
                Ok(client) => {
                    let is_direct: bool = client.query_typed_one(IS_MARKED, &[]).await?.get(0);
                    self.has_pooler.store(!is_direct, Ordering::Relaxed);
                    return Ok(Session { client, tls: self.tls.clone(), keeps_statements: is_direct });
                }
                Err(error) if may_be_about_the_mark(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let client = self.connect(&self.config).await?;
        self.has_pooler.store(true, Ordering::Relaxed);
        Ok(Session { client, tls: self.tls.clone(), keeps_statements: false })
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<Error> {
        if session.is_closed() { Err(RecycleError::message("the connection is closed")) } else { Ok(()) }
    }
}

/// PgBouncer says 08P01; others call an option that they do not pass on unsupported, a wrong value or unknown.
fn may_be_about_the_mark(error: &Error) -> bool {
    let code = error.code();
    code == Some(&SqlState::PROTOCOL_VIOLATION)
        || code.is_some_and(|code| matches!(code.code().get(..2), Some("0A" | "22" | "42")))
}

impl Manager {
    async fn connect(&self, config: &Config) -> Result<ClientWrapper, Error> {
        let (client, connection) = config.connect(self.tls.clone()).await?;
        let driving = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!("a connection to Postgres ended: {}", super::reason(&error));
            }
        });
        Ok(ClientWrapper::new(client, driving))
    }
}

impl Session {
    /// For what is asked so often that planning it each time would count; elsewhere the driver's `query_typed` is as good.
    ///
    /// # Errors
    /// The statement's.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that knows whether a statement may have a name"
    )]
    pub async fn query_often(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Error> {
        if !self.keeps_statements {
            return self.client.query_typed(statement, parameters).await;
        }
        let (values, types): (Vec<&(dyn ToSql + Sync)>, Vec<_>) = parameters.iter().cloned().unzip();
        let prepared = self.client.prepare_typed_cached(statement, &types).await?;
        self.client.query(&prepared, &values).await.inspect_err(|error| {
            if error.code() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME) {
                self.client.statement_cache.clear(); // somebody between us and Postgres has forgotten it
            }
        })
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Manager").finish_non_exhaustive()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Ends what a connection is doing and takes it out of the pool: nobody knows what state it is in. A statement that waits for a lock
/// would not notice that we have gone, and hold its server process until it gets it.
pub async fn abandon(connection: Connection) {
    let (token, tls) = (connection.cancel_token(), connection.tls.clone());
    drop(Connection::take(connection));
    if timeout(CANCEL_TIMEOUT, token.cancel_query(tls)).await.is_err() {
        tracing::warn!("Postgres does not answer a cancel request");
    }
}
