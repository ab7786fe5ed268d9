//! Taking in a request's body: within its size, its time, and one budget over all bodies at once.

use crate::{problem::Problem, telemetry::Full};
use http_body_util::BodyExt;
use hyper::{body::Body, body::Bytes, body::Incoming};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Bytes of an unwanted body that are read and thrown away, so that the client, still writing, gets the answer and not a
/// reset.
const MAX_DISCARDED_BYTES: usize = 4 << 20;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_millis(500);

/// The bounds of bodies.
#[derive(Debug, Clone)]
pub struct BodyLimits {
    /// Bytes of one body.
    pub bytes: usize,
    /// From the first byte awaited to the last.
    pub time: Duration,
    /// One permit per byte of all bodies in memory.
    pub budget: Arc<Semaphore>,
    /// All permits.
    pub budget_bytes: usize,
}

impl BodyLimits {
    /// Bytes of the bodies in memory.
    #[must_use]
    pub fn held(&self) -> usize {
        self.budget_bytes.saturating_sub(self.budget.available_permits())
    }
}

/// A whole body, and its part of the budget for as long as it is held.
#[derive(Debug)]
pub struct HeldBody {
    /// The bytes as received.
    pub bytes: Bytes,
    /// Given back on drop.
    pub share: Option<OwnedSemaphorePermit>,
}

/// Reads a body to its end. The budget is taken for what has arrived and not for what a header promises: slow clients hold
/// no more than they have sent.
///
/// # Errors
/// [`Problem::PayloadTooLarge`], [`Problem::BodyTooSlow`], [`Problem::Overloaded`]; [`Problem::InvalidPayload`] for a broken
/// transfer.
pub async fn receive(body: &mut Incoming, limits: &BodyLimits) -> Result<HeldBody, Problem> {
    let too_large = || Problem::PayloadTooLarge(limits.bytes);
    if usize::try_from(body.size_hint().lower()).map_or(true, |promised| promised > limits.bytes) {
        return Err(too_large());
    }
    let read = async {
        let mut held = HeldBody { bytes: Bytes::new(), share: None };
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(Problem::field("", "the transfer broke off or its framing is wrong"));
            };
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limits.bytes {
                return Err(too_large());
            }
            held.grow(data.len(), &limits.budget)?;
            bytes.extend_from_slice(&data);
        }
        held.bytes = bytes.into();
        Ok(held)
    };
    timeout(limits.time, read).await.unwrap_or(Err(Problem::BodyTooSlow))
}

impl HeldBody {
    fn grow(&mut self, bytes: usize, budget: &Arc<Semaphore>) -> Result<(), Problem> {
        let permits = u32::try_from(bytes).map_err(|_| Full::Bodies.shed())?;
        let more = budget.clone().try_acquire_many_owned(permits).map_err(|_| Full::Bodies.shed())?;
        match &mut self.share {
            Some(share) => share.merge(more),
            None => self.share = Some(more),
        }
        Ok(())
    }
}

/// Reads on without keeping anything, within bounds.
pub async fn discard(body: &mut Incoming) {
    let read = async {
        let mut left = MAX_DISCARDED_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { break };
            left = rest;
        }
    };
    // Whatever the end, the answer goes out now.
    let _ = timeout(DISCARD_TIME, read).await;
}
