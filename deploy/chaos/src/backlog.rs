//! What waits in the outbox, looked at all the time and past the wires; and how long after a fault nothing of it waited any more.

use crate::senders::Clients;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_postgres::Client;

/// Between two looks: what a recovery time is exact to.
const EVERY: Duration = Duration::from_millis(100);
/// For an answer.
const ANSWER: Duration = Duration::from_secs(2);

/// The highest id, and the lowest of those that wait; a counted failure waits for its time. From $1 on: below it nothing waits.
const LOOK: &str = "select coalesce(max(id), 0), min(id) filter (where processed_at is null and dead_at is null and retry_count = 0),
    min(id) filter (where processed_at is null and dead_at is null) from outbox_messages where id >= $1";

/// One look.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    /// When it began.
    pub at: Instant,
    /// The highest id.
    pub highest: i64,
    /// The lowest id of those that wait for a relay.
    pub lowest_waiting: Option<i64>,
    /// The lowest id of those and of those that wait for their time after a counted failure.
    pub lowest_of_all: Option<i64>,
}

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Watch {
    looks: watch::Receiver<Option<Backlog>>,
    task: JoinHandle<()>,
    recoveries: Arc<Mutex<Vec<(String, Duration)>>>,
}

impl Watch {
    /// On this Postgres.
    #[must_use]
    pub fn start(url: String) -> Watch {
        let (sender, looks) = watch::channel(None);
        let task = tokio::spawn(async move {
            let (mut sql, mut from) = (None, 0);
            loop {
                if sql.is_none() {
                    sql = timeout(ANSWER, shared::postgres::connect(&url, "chaos-watch"))
                        .await
                        .ok()
                        .and_then(Result::ok);
                }
                let at = Instant::now();
                let look = match &sql {
                    Some(sql) => timeout(ANSWER, look(sql, at, from)).await.ok().flatten(),
                    None => None,
                };
                match look {
                    Some(backlog) => {
                        from = backlog.lowest_of_all.unwrap_or(backlog.highest);
                        let _ = sender.send(Some(backlog)); // nobody may be interested
                    }
                    None => sql = None,
                }
                sleep(EVERY).await;
            }
        });
        Watch { looks, task, recoveries: Arc::default() }
    }

    /// Measures, from now on, until the clients are answered and everything that waited is done.
    pub fn measure(&self, fault: String, clients: Arc<Clients>) {
        let (mut looks, recoveries, mended) = (self.looks.clone(), self.recoveries.clone(), Instant::now());
        tokio::spawn(async move {
            let is_later = |look: &Option<Backlog>| look.is_some_and(|look| look.at > mended);
            let first = looks.wait_for(is_later).await.map(|look| look.map_or(0, |look| look.highest));
            let Ok(highest) = first else { return };
            let is_done = |look: &Option<Backlog>| {
                look.is_some_and(|look| {
                    look.at > mended && look.lowest_waiting.is_none_or(|lowest| lowest > highest)
                })
            };
            if looks.wait_for(is_done).await.is_err() {
                return;
            }
            while !clients.were_answered_since(mended) {
                sleep(EVERY).await;
            }
            recoveries.lock().unwrap_or_else(PoisonError::into_inner).push((fault, mended.elapsed()));
        });
    }

    /// Waits until nothing waits for a relay; false if that takes longer.
    pub async fn settles_within(&self, limit: Duration) -> bool {
        let (mut looks, asked) = (self.looks.clone(), Instant::now());
        let is_empty = |look: &Option<Backlog>| {
            look.is_some_and(|look| look.at > asked && look.lowest_waiting.is_none())
        };
        timeout(limit, looks.wait_for(is_empty)).await.is_ok_and(|look| look.is_ok())
    }

    /// Messages between the lowest that waits and the highest.
    #[must_use]
    pub fn length(&self) -> Option<i64> {
        let look = (*self.looks.borrow())?;
        Some(look.lowest_waiting.map_or(0, |lowest| look.highest - lowest + 1))
    }

    /// Of every fault after which all was well again, so far.
    #[must_use]
    pub fn recoveries(&self) -> Vec<(String, Duration)> {
        self.recoveries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(sql: &Client, at: Instant, from: i64) -> Option<Backlog> {
    let row = sql.query_one(LOOK, &[&from]).await.ok()?;
    Some(Backlog { at, highest: row.get(0), lowest_waiting: row.get(1), lowest_of_all: row.get(2) })
}
