//! Taking in a request's body: within its size, its time, and one budget over all bodies at once.
//!
//! Where the budget is used up, the bodies that are being read for the longest make room, and their senders get the 503: clients that
//! send large bodies slowly, or many small ones, would else keep everybody out, and nobody has to be known to send a body.

use crate::{problem::Problem, telemetry::Full};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use shared::http::RequestBody;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Bytes of an unwanted body that are read and thrown away, so that the client, still writing, gets the answer and not a
/// reset.
const MAX_DISCARDED_BYTES: usize = 4 << 20;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_millis(500);
/// For a body that has to make room to be let go.
const ROOM: Duration = Duration::from_secs(1);

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
    /// Who has them and is still reading.
    pub readers: Readers,
}

/// The bodies that are being read, in the order of their beginnings.
#[derive(Debug, Clone, Default)]
pub struct Readers(Arc<Mutex<BTreeMap<u64, Reading>>>);

/// One of them.
#[derive(Debug, Default)]
struct Reading {
    bytes: usize,
    ended: CancellationToken,
}

impl Readers {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Reading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Reader {
        let (mut all, ended) = (self.all(), CancellationToken::new());
        let number = all.last_key_value().map_or(0, |(last, _)| last + 1);
        all.insert(number, Reading { bytes: 0, ended: ended.clone() });
        Reader { number, ended, readers: self.clone() }
    }
}

/// A body's place among them, until it is read.
struct Reader {
    number: u64,
    ended: CancellationToken,
    readers: Readers,
}

impl Reader {
    fn has(&self, bytes: usize) {
        if let Some(own) = self.readers.all().get_mut(&self.number) {
            own.bytes = bytes;
        }
    }

    /// Ends bodies that began before this one, the oldest first, until they have so much between them; none if they have less.
    fn ends_older_ones(&self, bytes: usize) -> bool {
        let all = self.readers.all();
        let older = all.range(..self.number).map(|(_, reading)| reading);
        let mut found = 0;
        let mut ended = Vec::new();
        for reading in older.filter(|reading| reading.bytes > 0 && !reading.ended.is_cancelled()) {
            if found >= bytes {
                break;
            }
            found += reading.bytes;
            ended.push(&reading.ended);
        }
        let covered = found >= bytes;
        if covered {
            ended.into_iter().for_each(CancellationToken::cancel);
        }
        covered
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.all().remove(&self.number);
    }
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
pub async fn receive(body: &mut RequestBody, limits: &BodyLimits) -> Result<HeldBody, Problem> {
    let too_large = || Problem::PayloadTooLarge(limits.bytes);
    if usize::try_from(body.size_hint().lower()).map_or(true, |promised| promised > limits.bytes) {
        return Err(too_large());
    }
    let reader = limits.readers.begin();
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
            held.grow(data.len(), &limits.budget, &reader).await?;
            bytes.extend_from_slice(&data);
            reader.has(bytes.len());
        }
        held.bytes = bytes.into();
        Ok(held)
    };
    let made_room = reader.ended.clone();
    let read = timeout(limits.time, read);
    let Some(read) = made_room.run_until_cancelled(read).await else { return Err(Full::Bodies.shed()) };
    read.unwrap_or(Err(Problem::BodyTooSlow))
}

impl HeldBody {
    async fn grow(&mut self, bytes: usize, budget: &Arc<Semaphore>, reader: &Reader) -> Result<(), Problem> {
        let permits = u32::try_from(bytes).map_err(|_| Full::Bodies.shed())?;
        let more = match budget.clone().try_acquire_many_owned(permits) {
            Ok(more) => more,
            Err(_) if reader.ends_older_ones(bytes) => {
                let room = timeout(ROOM, budget.clone().acquire_many_owned(permits)).await;
                room.ok().and_then(Result::ok).ok_or_else(|| Full::Bodies.shed())?
            }
            Err(_) => return Err(Full::Bodies.shed()),
        };
        match &mut self.share {
            Some(share) => share.merge(more),
            None => self.share = Some(more),
        }
        Ok(())
    }
}

/// Reads on without keeping anything, within bounds.
pub async fn discard(body: &mut RequestBody) {
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
