//! Wakes the lanes when ingest has committed something: LISTEN on a connection of its own. Only a hint: lanes poll anyway.

use shared::{outbox::CHANNEL, postgres};
use std::{future::poll_fn, sync::Arc, time::Duration};
use tokio::sync::Notify;
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;

/// Pause before listening is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// Notifies `wake` at every poke until the token is cancelled; reconnects by itself.
pub async fn listen(url: String, wake: Arc<Notify>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        if let Some(Err(reason)) = shutdown.run_until_cancelled(listen_once(&url, &wake)).await {
            tracing::debug!("not listening for pokes: {reason}");
            shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
        }
    }
}

async fn listen_once(url: &str, wake: &Notify) -> Result<(), String> {
    let (client, mut connection) =
        postgres::open(url, "relay-listen").await.map_err(|error| error.to_string())?;
    let statement = format!("listen {CHANNEL}");
    let mut listening = std::pin::pin!(client.batch_execute(&statement));
    let mut asked = false;
    loop {
        // The connection has to be driven for the LISTEN to be sent at all.
        let message = tokio::select! {
            message = poll_fn(|context| connection.poll_message(context)) => message,
            done = &mut listening, if !asked => {
                done.map_err(|error| postgres::reason(&error))?;
                asked = true;
                wake.notify_waiters(); // something may have been committed before we listened
                continue;
            }
        };
        match message {
            Some(Ok(AsyncMessage::Notification(_))) => wake.notify_waiters(),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(postgres::reason(&error)),
            None => return Err("the connection ended".into()),
        }
    }
}
