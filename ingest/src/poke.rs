//! The poke after a commit: wakes the relays, at most once per 5 ms, on a connection of its own.
//!
//! Outside any transaction, because NOTIFY inside one takes a database-wide lock at commit. A lost poke is harmless: relays
//! poll.

use shared::{outbox::POKE, postgres};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

/// Commits within it share one poke.
const INTERVAL: Duration = Duration::from_millis(5);
/// After a failed poke or connect, before the next try.
const PAUSE: Duration = Duration::from_secs(1);
/// For one poke.
const POKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Asks for a poke; never waits.
#[derive(Debug, Clone, Default)]
pub struct Poker {
    asked: Arc<Notify>,
}

impl Poker {
    /// To be called after a commit.
    pub fn poke(&self) {
        self.asked.notify_one();
    }

    /// Pokes when asked, until the token is cancelled.
    pub async fn run(self, url: String, shutdown: CancellationToken) {
        let work = async {
            let mut client = None;
            loop {
                self.asked.notified().await;
                let pause = match poke(&url, &mut client).await {
                    Ok(()) => INTERVAL,
                    Err(reason) => {
                        tracing::debug!(reason, "the poke failed; relays poll anyway");
                        client = None;
                        PAUSE
                    }
                };
                sleep(pause).await;
            }
        };
        shutdown.run_until_cancelled(work).await;
    }
}

async fn poke(url: &str, client: &mut Option<Client>) -> Result<(), String> {
    let connected = match client.take().filter(|client| !client.is_closed()) {
        Some(connected) => connected,
        None => postgres::connect(url, "ingest-poke").await.map_err(|error| error.to_string())?,
    };
    let poked = timeout(POKE_TIMEOUT, connected.batch_execute(POKE)).await.map_err(|_| "timeout")?;
    poked.map_err(|error| postgres::reason(&error))?;
    *client = Some(connected);
    Ok(())
}
