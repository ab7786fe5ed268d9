//! Which relays may work in a database: those that write MongoDB, or those that only watch (`--shadow`). Owns `relay_mode`.
//!
//! The first relay decides, for good, or before it `relay migrate --shadow` or an import: in a watched database the ledger says what
//! would be in MongoDB, and a relay that writes would take it for what is. Such a database is thrown away after the trial.

use shared::postgres::Connection;
use tokio_postgres::types::Type;

/// One row, or none before the first relay.
const KNOWN: &str = "select is_shadow from relay_mode";

/// Of two first relays one decides: the other waits for its row, and looks again. Who only watches takes no database that knows of
/// writes.
const TAKE: &str = "
insert into relay_mode (is_shadow, worker) select $1, $2 where not $1 or not exists (select from creditor_debts)
on conflict (only_row) do nothing";

/// Whether this is a database of relays that only watch; None = no relay has worked here yet.
///
/// # Errors
/// The statement's.
pub async fn is_shadow(connection: &Connection) -> Result<Option<bool>, tokio_postgres::Error> {
    Ok(connection.query_typed(KNOWN, &[]).await?.first().map(|row| row.get(0)))
}

/// Admits a relay, or who prepares a database for one; the first decides what the database is. Some = it is not admitted, and why.
///
/// # Errors
/// The statement's.
pub async fn admit(
    connection: &Connection,
    shadow: bool,
    worker: &str,
) -> Result<Option<&'static str>, tokio_postgres::Error> {
    let mut known = is_shadow(connection).await?;
    if known.is_none() {
        connection.execute_typed(TAKE, &[(&shadow, Type::BOOL), (&worker, Type::TEXT)]).await?;
        known = is_shadow(connection).await?;
    }
    Ok(match (shadow, known) {
        (true, Some(true)) | (false, Some(false)) => None,
        (false, Some(true)) => Some(
            "this database was filled by shadow relays (RELAY_SHADOW), which write no MongoDB: its ledger is none. Use a new database for relays that write",
        ),
        (true, Some(false) | None) => Some(
            "this database is for relays that write MongoDB, which have worked in it or for which mails were imported: a shadow relay (RELAY_SHADOW) needs one of its own",
        ),
        (false, None) => Some("another relay is deciding whether this is a shadow's database"),
    })
}
