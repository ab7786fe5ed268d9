//! Postgres: connections, the migrations, and which errors pass by themselves. The pool: `postgres/pool.rs`, TLS: `postgres/tls.rs`.
//!
//! Owns no table. Sets nothing on a session: behind a PgBouncer in transaction mode a session is not ours, so settings belong to
//! the role or inside the transaction. For the same reason no statement is ever named, but through [`Session::query_often`], which
//! knows where that is safe; a lint sees to it.

mod pool;
mod tls;

use deadpool_postgres::PoolError;
pub use pool::{Connection, Manager, Pool, Session, abandon, pool};
use std::time::Duration;
use tls::Tls;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Config, Socket, error::SqlState, tls::MakeTlsConnect, types::Type};

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that has been quiet for so long is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long a migration waits for a lock, and how often it tries.
const LOCK_WAIT: &str = "set lock_timeout = '3s'";
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_secs(5);

mod embedded {
    refinery::embed_migrations!("../sql");
}

/// Not a migration: run after them, each time.
const ROLES: &str = include_str!("../../sql/roles.sql");

/// A failure before any statement of ours ran.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The URL cannot be used; the text never repeats it, since it holds the password.
    #[error("the Postgres URL is not usable: {0}")]
    Url(String),
    /// Not reachable, or it refused us.
    #[error("Postgres is not reachable: {}", reason(.0))]
    Connect(#[source] tokio_postgres::Error),
    /// The server accepts connections and then says nothing.
    #[error("Postgres is not reachable: no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Silent,
    /// Tables that no migration of ours made have our tables' names.
    #[error(
        "the schema `{schema}` holds {tables}, which this system did not create: another service's? Nothing was changed. \
         Give this system a database of its own (`create database NAME`) and name it in DATABASE_URL"
    )]
    Foreign {
        /// Where our tables would go.
        schema: String,
        /// Which names are taken.
        tables: String,
    },
    /// The roles could not be given their rights.
    #[error("sql/roles.sql failed: {}", reason(.0))]
    Roles(#[source] tokio_postgres::Error),
    /// A migration failed; everything before it stays.
    #[error("a migration failed: {0}")]
    Migration(#[from] refinery::Error),
}

/// Checks a `postgres://` URL or a libpq key=value string; does not touch the network, but reads the file of `sslrootcert`.
///
/// # Errors
/// [`PostgresError::Url`] when it cannot be used.
pub fn check_url(url: &str) -> Result<(), PostgresError> {
    target(url, "check").map(drop)
}

/// Where to connect, and how it is made confidential.
fn target(url: &str, application_name: &str) -> Result<(Config, Tls), PostgresError> {
    let (mut config, tls) = tls::read(url)?;
    config
        .application_name(application_name)
        .connect_timeout(CONNECT_TIMEOUT)
        .keepalives_idle(KEEPALIVE) // the default is two hours: firewalls forget a quiet connection much earlier
        .tcp_user_timeout(Duration::from_secs(10));
    Ok((config, tls))
}

/// A connection whose messages the caller reads: for LISTEN.
///
/// # Errors
/// [`PostgresError`].
pub async fn open(
    url: &str,
    application_name: &str,
) -> Result<
    (Client, tokio_postgres::Connection<Socket, <Tls as MakeTlsConnect<Socket>>::Stream>),
    PostgresError,
> {
    let (config, tls) = target(url, application_name)?;
    // The driver's own timeout ends with the TCP connection: a server that accepts and says nothing would hold us for ever.
    match timeout(CONNECT_TIMEOUT, config.connect(tls)).await {
        Ok(connected) => connected.map_err(PostgresError::Connect),
        Err(_) => Err(PostgresError::Silent),
    }
}

/// The advisory locks of both programs, all of them transaction-level. Their numbers only have to differ from each other, which the
/// compiler sees to, and from other applications' locks in the same database.
#[derive(Debug, Clone, Copy)]
#[repr(i64)]
pub enum AdvisoryLock {
    /// One process migrates.
    Migration = 7_355_608_120,
    /// One relay removes what nobody needs any more.
    Maintenance = 7_355_608_130,
    /// One worker at a time applies a large batch.
    Turn = 7_355_608_140,
    /// One relay at a time takes places for letters.
    LetterPlaces = 7_355_608_150,
    /// One relay at a time decides whether a reconciliation is due.
    Reconciliation = 7_355_608_160,
}

impl AdvisoryLock {
    /// What Postgres knows it by.
    #[must_use]
    pub const fn number(self) -> i64 {
        self as i64
    }
}

/// A connection outside the pool: for migrations and for the poke.
///
/// # Errors
/// [`PostgresError`].
pub async fn connect(url: &str, application_name: &str) -> Result<Client, PostgresError> {
    let (client, connection) = open(url, application_name).await?;
    // Ends by itself when the client is dropped or the server goes away; the next statement then reports it.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

/// What [`migrate`] has done.
#[derive(Debug)]
pub struct Migrated {
    /// The names of the migrations that this call applied.
    pub applied: Vec<String>,
    /// Why the roles have not been given their rights, and what to do; the programs can work as the tables' owner then.
    pub roles: Result<(), String>,
}

/// Brings the schema up to date, and gives the roles their rights. Any number of processes may call it at once: a
/// transaction-level advisory lock on a second connection lets one of them work.
///
/// # Errors
/// [`PostgresError`]; [`PostgresError::Foreign`] before anything is changed, where it would be the first migration and our names
/// are taken.
pub async fn migrate(url: &str) -> Result<Migrated, PostgresError> {
    let mut gate = connect(url, "migrate-gate").await?;
    let lock = gate.transaction().await.map_err(PostgresError::Connect)?;
    let take = format!("select pg_advisory_xact_lock({})", AdvisoryLock::Migration.number());
    lock.batch_execute(&take).await.map_err(PostgresError::Connect)?;
    let mut client = connect(url, "migrate").await?;
    refuse_foreign_tables(&client).await?;
    // A statement that waits for its lock holds up everybody who comes after it: it gives way to a dump, and tries again.
    client.batch_execute(LOCK_WAIT).await.map_err(PostgresError::Connect)?;
    let mut attempts = LOCK_ATTEMPTS;
    let report = loop {
        match embedded::migrations::runner().set_grouped(true).run_async(&mut client).await {
            Err(error) if attempts > 1 && is_lock_timeout(&error) => attempts -= 1,
            end => break end?,
        }
        tracing::warn!(
            "the migration waits for others' statements; it tries again in {} s",
            LOCK_PAUSE.as_secs()
        );
        sleep(LOCK_PAUSE).await;
    };
    client.batch_execute("reset lock_timeout").await.map_err(PostgresError::Connect)?;
    let applied = report.applied_migrations().iter().map(ToString::to_string).collect();
    Ok(Migrated { applied, roles: grant_roles(&client).await? })
}

fn is_lock_timeout(error: &refinery::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let postgres = error.downcast_ref::<tokio_postgres::Error>();
        if postgres.and_then(tokio_postgres::Error::code) == Some(&SqlState::LOCK_NOT_AVAILABLE) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// One transaction: many statements in one query are.
async fn grant_roles(client: &Client) -> Result<Result<(), String>, PostgresError> {
    match client.batch_execute(ROLES).await {
        Ok(()) => Ok(Ok(())),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(Err(format!(
            "the roles ingest, relay, operator and monitor have not been given their rights: {}. A database administrator runs \
             `create role ingest nologin; create role relay nologin; create role operator nologin; create role monitor nologin`, and the owner of the tables \
             `relay migrate` again",
            reason(&error)
        ))),
        Err(error) => Err(PostgresError::Roles(error)),
    }
}

async fn refuse_foreign_tables(client: &Client) -> Result<(), PostgresError> {
    const TAKEN: &str = "
        select current_schema(), string_agg(quote_ident(relname), ', ' order by relname)
        from pg_class where relnamespace = current_schema()::regnamespace and relname = any($1)
            and to_regclass('refinery_schema_history') is null";
    let migrations = embedded::migrations::runner();
    let statements = migrations.get_migrations().iter().filter_map(|migration| migration.sql());
    let tables: Vec<&str> = statements
        .flat_map(|sql| sql.split("\ncreate table ").skip(1))
        .filter_map(|rest| rest.split_whitespace().next())
        .collect();
    let row = client.query_typed_one(TAKEN, &[(&tables, Type::TEXT_ARRAY)]).await;
    let row = row.map_err(PostgresError::Connect)?;
    match (row.get(0), row.get(1)) {
        (Some(schema), Some(tables)) => Err(PostgresError::Foreign { schema, tables }),
        _ => Ok(()),
    }
}

/// The schema that this build was written for: the number of the newest migration it carries.
#[must_use]
pub fn schema_of_this_build() -> u32 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .filter_map(|migration| u32::try_from(migration.version()).ok())
        .max()
        .unwrap_or(0)
}

/// Checks that the database takes writes and has at least [`schema_of_this_build`]; a newer one is fine, since schemas only expand
/// under a running program.
///
/// # Errors
/// What is missing and which command mends it, fit for readiness and logs.
pub async fn check_schema(client: &Client) -> Result<(), String> {
    let wanted = schema_of_this_build();
    // One round trip without a named statement: works behind a PgBouncer in transaction mode.
    const LOOK: &str = "select coalesce(max(version), 0)::int, current_setting('transaction_read_only') = 'on' from refinery_schema_history";
    let found = match client.query_typed_one(LOOK, &[]).await {
        Ok(row) if row.get(1) => {
            return Err("Postgres: takes no writes: a standby, or default_transaction_read_only is on".into());
        }
        Ok(row) => u32::try_from(row.get::<_, i32>(0)).unwrap_or(0),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => 0,
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            return Err(format!(
                "Postgres: {}: run `relay migrate` as the owner of the tables, and give the user of DATABASE_URL its role: \
                 `grant ingest to USER` or `grant relay to USER`",
                reason(&error)
            ));
        }
        Err(error) => return Err(format!("Postgres: {}", reason(&error))),
    };
    if found >= wanted {
        return Ok(());
    }
    Err(format!("Postgres: the schema is at version {found}, this build needs {wanted}: run `relay migrate`"))
}

/// Whether the same statement may succeed later without anybody changing it: connection trouble, shutdown, too many connections,
/// read-only after a failover, deadlock, serialization, lock timeout.
#[must_use]
pub fn is_transient(error: &tokio_postgres::Error) -> bool {
    let Some(code) = error.code() else {
        return true; // no SQLSTATE: the connection, not the statement
    };
    matches!(code.code().get(..2), Some("08" | "40" | "53" | "57" | "58"))
        || matches!(code.code(), "25006" | "55P03")
}

/// The server's own words with the SQLSTATE, or the cause of a broken connection; never the statement's values.
#[must_use]
pub fn reason(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        if server.code().code().starts_with("22") {
            return format!("a value was refused ({})", server.code().code()); // the words repeat it
        }
        return format!("{} ({})", server.message(), server.code().code());
    }
    if let Some(refused) = tls::refusal(error) {
        return refused;
    }
    match std::error::Error::source(error) {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
}

/// Why the pool gave no connection.
#[must_use]
pub fn pool_reason(error: &PoolError) -> String {
    if let PoolError::Backend(error) = error { reason(error) } else { error.to_string() }
}
