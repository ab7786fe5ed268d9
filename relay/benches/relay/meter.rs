//! What Postgres counted during a run: WAL, transactions, HOT updates.

use crate::{
    report::{ratio, rounded},
    stock,
};
use anyhow::bail;
use serde_json::{Value, json};
use std::time::Duration;
use testkit::Database;
use tokio_postgres::Client;

/// The WAL and its full-page images are those of the whole server, where nothing else works during a bench. Postgres counts
/// transactions; every statement of relay and feed is one of its own.
const COUNTERS: &str =
    "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8, wal_fpi::float8, xact_commit::float8,
        coalesce(n_tup_upd, 0)::float8, coalesce(n_tup_hot_upd, 0)::float8
    from pg_stat_wal, pg_stat_database d left join pg_stat_user_tables on relname = 'outbox_messages'
    where d.datname = current_database()";

/// Connections whose counters are not in the statistics yet: they are when a connection has ended.
const MEASURED: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and backend_type = 'client backend' and application_name <> 'bench'";

/// Runs from its start to its stop.
#[derive(Debug)]
pub(crate) struct Meter {
    sql: Client,
    start: Counters,
}

/// A reading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counters {
    pub(crate) wal_bytes: f64,
    pub(crate) full_page_images: f64,
    pub(crate) transactions: f64,
    pub(crate) updates: f64,
    pub(crate) hot_updates: f64,
}

impl Counters {
    /// Reads them now; what open connections did in the last second may be missing.
    pub(crate) async fn read(sql: &Client) -> anyhow::Result<Counters> {
        let row = sql.query_one(COUNTERS, &[]).await?;
        Ok(Counters {
            wal_bytes: row.get(0),
            full_page_images: row.get(1),
            transactions: row.get(2),
            updates: row.get(3),
            hot_updates: row.get(4),
        })
    }

    /// The difference, for each of `n` messages.
    pub(crate) fn since(self, start: Counters, n: f64) -> Value {
        json!({
            "wal_bytes_per_message": ((self.wal_bytes - start.wal_bytes) / n.max(1.0)).round(),
            "wal_full_page_images_per_message": rounded((self.full_page_images - start.full_page_images) / n.max(1.0)),
            "statements_per_message": rounded((self.transactions - start.transactions) / n.max(1.0)),
            "hot_share": ratio(self.hot_updates - start.hot_updates, self.updates - start.updates),
        })
    }
}

impl Meter {
    pub(crate) async fn start(database: &Database) -> anyhow::Result<Meter> {
        let sql = stock::connect(database).await?;
        let start = Counters::read(&sql).await?;
        Ok(Meter { sql, start })
    }

    /// Waits until the measured connections have ended, then reads.
    pub(crate) async fn stop(self, n: u64) -> anyhow::Result<Value> {
        for _ in 0..500 {
            if self.sql.query_one(MEASURED, &[]).await?.get::<_, i64>(0) == 0 {
                #[expect(clippy::cast_precision_loss, reason = "millions at most")]
                return Ok(Counters::read(&self.sql).await?.since(self.start, n as f64));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("connections of what was measured are still open after 5 s");
    }
}
