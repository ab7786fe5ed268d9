//! Commits messages while a relay runs, and pokes after each commit as ingest does.

use crate::stock;
use anyhow::Context as _;
use ingest::poke::Poker;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use testkit::Database;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Statement};
use tokio_util::sync::CancellationToken;

/// Between two commits of a [`Feed`].
const EVERY: Duration = Duration::from_millis(50);
/// Most messages of one commit: a feed that has fallen behind does not make it worse by huge transactions.
const MOST: u32 = 10_000;

/// One statement that commits the messages from $1 to $2 with their mails.
#[derive(Debug)]
pub(crate) struct Inserter {
    sql: Client,
    statement: Statement,
}

impl Inserter {
    /// In turn about each of so many pairs, if `in_turn`, else about any of them.
    pub(crate) async fn new(database: &Database, pairs: u32, in_turn: bool) -> anyhow::Result<Inserter> {
        let sql = stock::connect(database).await?;
        let pair = if in_turn { "i".to_owned() } else { "(hashint8(i) & 2147483647)".to_owned() };
        let work = format!("select i, {pair} % {pairs} as pair from generate_series($1::int8, $2::int8) i");
        let statement = sql.prepare(&stock::insert(&work, "payload")).await?;
        Ok(Inserter { sql, statement })
    }

    /// Commits these.
    pub(crate) async fn commit(&self, first: u32, last: u32) -> anyhow::Result<()> {
        self.sql.execute(&self.statement, &[&i64::from(first), &i64::from(last)]).await?;
        Ok(())
    }
}

/// Runs until the token is cancelled.
pub(crate) fn poker(database: &Database, stop: &CancellationToken) -> Poker {
    let poker = Poker::default();
    tokio::spawn(poker.clone().run(database.url.clone(), stop.clone()));
    poker
}

/// Commits at an even rate until it is stopped.
#[derive(Debug)]
pub(crate) struct Feed {
    task: JoinHandle<anyhow::Result<()>>,
    fed: Arc<AtomicU32>,
    stop: CancellationToken,
}

impl Feed {
    /// From message 1 on, `rate` a second.
    pub(crate) async fn start(database: &Database, pairs: u32, rate: u32) -> anyhow::Result<Feed> {
        let inserter = Inserter::new(database, pairs, false).await?;
        let (fed, stop) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
        let poker = poker(database, &stop);
        let (count, stopped) = (fed.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let started = Instant::now();
            let mut next = 1;
            while !stopped.is_cancelled() {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "millions at most"
                )]
                let due = (started.elapsed().as_secs_f64() * f64::from(rate)) as u32;
                let last = due.min(next + MOST - 1);
                if last >= next {
                    inserter.commit(next, last).await?;
                    poker.poke();
                    count.store(last, Ordering::Relaxed);
                    next = last + 1;
                }
                tokio::time::sleep(EVERY).await;
            }
            Ok(())
        });
        Ok(Feed { task, fed, stop })
    }

    /// Messages committed so far.
    pub(crate) fn fed(&self) -> u32 {
        self.fed.load(Ordering::Relaxed)
    }

    /// Fails if it has ended by itself, and why.
    pub(crate) async fn must_run(&mut self) -> anyhow::Result<()> {
        if self.task.is_finished() {
            (&mut self.task).await.context("the feed")?.context("the feed")?;
        }
        Ok(())
    }

    /// Messages committed in all.
    pub(crate) async fn stop(self) -> anyhow::Result<u32> {
        self.stop.cancel();
        self.task.await.context("the feed")?.context("the feed")?;
        Ok(self.fed.load(Ordering::Relaxed))
    }
}
