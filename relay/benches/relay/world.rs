//! What one measured run works in.

use crate::{
    meter::Meter,
    report::{joined, rounded},
    stock,
    verify::{self, Kept},
};
use serde_json::{Value, json};
use testkit::{Database, MongoDatabase, PgBouncer};

/// Databases of one run's own, equal to those of every other run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) mongo: MongoDatabase,
    pub(crate) n: u32,
    /// Between the relay and Postgres.
    pub(crate) pooler: Option<PgBouncer>,
}

impl World {
    /// A copy of the stock's `n` messages, with fresh documents.
    pub(crate) async fn of(stock: &Database, n: u32) -> anyhow::Result<World> {
        World::with(stock.copy().await, n, stock::pairs_of(n)).await
    }

    /// This database itself, and fresh documents of these pairs.
    pub(crate) async fn with(database: Database, n: u32, pairs: u32) -> anyhow::Result<World> {
        let mongo = stock::mongo(pairs).await?;
        stock::connect(&database).await?.batch_execute("checkpoint").await?;
        Ok(World { database, mongo, n, pooler: None })
    }

    /// Where the relay finds Postgres.
    pub(crate) fn relay_url(&self) -> String {
        let url = &self.database.url;
        self.pooler.as_ref().map_or_else(|| url.clone(), |pooler| pooler.instead(url))
    }

    /// What Postgres counted since the meter's start, and whether all is right.
    pub(crate) async fn result(&self, meter: Meter, kept: Kept) -> anyhow::Result<Value> {
        let counted = meter.stop(u64::from(self.n)).await?;
        let sql = stock::connect(&self.database).await?;
        let outcomes = verify::outcomes(&sql).await?;
        let superseded = outcomes.get("superseded").copied().unwrap_or(0);
        let right = json!({
            "wrong": verify::wrong_pairs(self, &sql, kept).await?,
            "coalesced": rounded(f64::from(superseded) / f64::from(self.n.max(1))),
            "outcomes": outcomes,
        });
        Ok(joined([counted, right]))
    }
}
