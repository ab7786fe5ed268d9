//! Letters on their way to the mail server, a few at a time; shared by the operations that tell the firm something.

use crate::{
    letters::Letter,
    outbox::{Claim, Finished},
    outcome::{Failure, Outcome},
    smtp::{CONCURRENCY, LONGEST, Mailer},
};
use futures_util::{StreamExt as _, stream};
use std::sync::OnceLock;
use tokio::time::Instant;
use tracing::Instrument as _;

/// A letter for one message.
pub(super) struct Post {
    pub(super) claim: Claim,
    pub(super) letter: Letter,
    /// What its Message-ID is made of.
    pub(super) key: String,
}

/// Sends each letter. After the first failure that is the server's nothing more is begun, nor what might not end before the deadline.
pub(super) async fn deliver(mailer: &Mailer, posts: Vec<Post>, deadline: Instant) -> Vec<Finished> {
    let trouble: OnceLock<Failure> = OnceLock::new();
    let send = |Post { claim, letter, key }| {
        let (trouble, span) = (&trouble, claim.label.span());
        let sending = async move {
            if let Some(failure) = trouble.get() {
                return claim.failed(failure.clone(), 0);
            }
            if Instant::now() + LONGEST > deadline {
                return claim.give_back();
            }
            match mailer.send(&letter, &key, claim.past.is_last_attempt()).await {
                Ok(()) => claim.done(Outcome::Sent, 0),
                Err(failure) => {
                    if failure.class.is_the_sinks() {
                        trouble.get_or_init(|| failure.clone());
                    }
                    claim.failed(failure, 0)
                }
            }
        };
        sending.instrument(span)
    };
    stream::iter(posts).map(send).buffer_unordered(CONCURRENCY).collect().await
}
