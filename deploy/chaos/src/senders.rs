//! The clients: each sends a delivery again and again until its 200, as providers do, some of them twice, some late, and
//! remembers every answer.

use crate::{
    checker::{Breach, Breaches, Sent},
    delivery::{Delivery, MOST},
    exchange::exchange,
    stage::{SECRET, TOKEN},
};
use anyhow::Context as _;
use fastrand::Rng;
use ingest::source::zendesk::Verifier;
use jiff::Timestamp;
use serde_json::Value;
use shared::message::EmailId;
use std::{
    collections::VecDeque,
    fmt::Write,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// Clients at once. While nobody answers them, they wait, as providers do.
const SENDERS: u64 = 24;
/// For an answer: ingest's own limits are shorter.
const ANSWER: Duration = Duration::from_secs(8);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(150);
/// After the load has ended, for what was not answered yet.
const LAST_ANSWERS: Duration = Duration::from_secs(30);
/// Most deliveries that one client keeps for later.
const KEPT: usize = 12;

/// What the clients share.
#[derive(Debug)]
pub struct Clients {
    seed: u64,
    entries: usize,
    addresses: Vec<String>,
    verifier: Verifier,
    next: AtomicU64,
    started: Instant,
    /// Start of the latest attempt that got a 200, in ms since `started`.
    latest_200: AtomicU64,
    requests: AtomicU64,
    refused: AtomicU64,
    breaches: Mutex<Breaches>,
    stop: CancellationToken,
    stopped: OnceLock<Instant>,
}

/// All of them at work.
#[derive(Debug)]
pub struct Senders {
    clients: Arc<Clients>,
    tasks: JoinSet<Vec<Sent>>,
}

/// What became of the load.
#[derive(Debug)]
pub struct Account {
    /// Every delivery with its answers.
    pub sent: Vec<Sent>,
    /// Answers that no delivery may get.
    pub breaches: Breaches,
    /// Attempts.
    pub requests: u64,
    /// Those that were not answered by a 200: a refusal to be repeated, or nothing.
    pub refused: u64,
}

enum Answer {
    Stored(bool, EmailId),
    /// 422.
    OtherContent,
    /// To be sent again.
    Later,
}

impl Senders {
    /// So many deliveries a second, to all of the addresses.
    pub fn start(seed: u64, rate: u32, entries: usize, addresses: Vec<String>) -> anyhow::Result<Senders> {
        let secret = SECRET.parse().ok().context("the secret is one")?;
        let clients = Arc::new(Clients {
            seed,
            entries,
            addresses,
            verifier: Verifier::new(&secret, false, 1).map_err(anyhow::Error::msg)?,
            next: AtomicU64::new(0),
            started: Instant::now(),
            latest_200: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            breaches: Mutex::default(),
            stop: CancellationToken::new(),
            stopped: OnceLock::new(),
        });
        let pause = Duration::from_secs(SENDERS) / rate.max(1);
        let tasks = (0..SENDERS).map(|sender| clients.clone().send(sender, pause)).collect();
        Ok(Senders { clients, tasks })
    }

    /// What they share.
    #[must_use]
    pub fn clients(&self) -> Arc<Clients> {
        self.clients.clone()
    }

    /// No new deliveries; waits until the others are answered, for as long as may be.
    pub async fn stop(self) -> Account {
        let _ = self.clients.stopped.set(Instant::now());
        self.clients.stop.cancel();
        let sent = self.tasks.join_all().await.into_iter().flatten().collect();
        let breaches =
            std::mem::take(&mut *self.clients.breaches.lock().unwrap_or_else(PoisonError::into_inner));
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Account {
            sent,
            breaches,
            requests: count(&self.clients.requests),
            refused: count(&self.clients.refused),
        }
    }
}

impl Clients {
    /// Whether an attempt that began after this moment was answered by a 200.
    #[must_use]
    pub fn were_answered_since(&self, moment: Instant) -> bool {
        self.started + Duration::from_millis(self.latest_200.load(Ordering::Relaxed)) > moment
    }

    /// Attempts so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    async fn send(self: Arc<Self>, sender: u64, pause: Duration) -> Vec<Sent> {
        let mut random = Rng::with_seed(self.seed ^ (sender + 1) << 48);
        let (mut sent, mut kept) = (Vec::new(), VecDeque::new());
        let mut next = tokio::time::Instant::now() + pause.mul_f64(random.f64());
        while !self.stop.is_cancelled() {
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = sleep_until(next) => {}
            }
            // what could not be sent in time is not made up for
            next = (next + pause).max(tokio::time::Instant::now());
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= MOST {
                break;
            }
            let delivery = Delivery::new(self.seed, number, self.entries);
            if random.u8(..5) == 0 && kept.len() < KEPT {
                kept.push_back(delivery); // others overtake it
                continue;
            }
            sent.push(self.deliver(delivery, &mut random).await);
            if random.u8(..4) == 0
                && let Some(late) = kept.pop_front()
            {
                sent.push(self.deliver(late, &mut random).await);
            }
        }
        for late in kept {
            sent.push(self.deliver(late, &mut random).await);
        }
        sent
    }

    /// Until its 200; some of them twice at once, some again, and some once more with other content.
    async fn deliver(&self, delivery: Delivery, random: &mut Rng) -> Sent {
        let (first, chance) = (random.usize(..self.addresses.len()), random.u8(..100));
        let mut answers = Vec::new();
        if chance < 5 {
            let (one, other) =
                tokio::join!(self.until_stored(delivery, first), self.until_stored(delivery, first + 1));
            answers.extend([one, other].into_iter().flatten());
        } else {
            answers.extend(self.until_stored(delivery, first).await);
        }
        if chance < 15 && !answers.is_empty() {
            answers.extend(self.until_stored(delivery, first + 1).await);
        }
        if chance > 98 && !answers.is_empty() {
            self.other_content(delivery, first).await;
        }
        Sent { delivery, answers }
    }

    async fn until_stored(&self, delivery: Delivery, first: usize) -> Option<(bool, EmailId)> {
        let mut turn = first;
        loop {
            match self.attempt(delivery, false, turn).await {
                Answer::Stored(is_duplicate, email_id) => return Some((is_duplicate, email_id)),
                Answer::OtherContent => {
                    self.breach(format!("{} was answered as if it had other content", delivery.id()));
                    return None;
                }
                Answer::Later => turn += 1,
            }
            if self.is_over().await {
                return None;
            }
        }
    }

    /// The same id with other content must be refused, however often.
    async fn other_content(&self, delivery: Delivery, first: usize) {
        let mut turn = first;
        loop {
            match self.attempt(delivery, true, turn).await {
                Answer::Stored(..) => {
                    self.breach(format!("{} was answered by a 200 with other content", delivery.id()));
                    return;
                }
                Answer::OtherContent => return,
                Answer::Later => turn += 1,
            }
            if self.is_over().await {
                return;
            }
        }
    }

    /// Waits a little; whether the time for the last answers is over.
    async fn is_over(&self) -> bool {
        sleep(PAUSE).await;
        self.stopped.get().is_some_and(|stopped| stopped.elapsed() > LAST_ANSWERS)
    }

    async fn attempt(&self, delivery: Delivery, other_content: bool, turn: usize) -> Answer {
        let Some(address) = self.addresses.get(turn % self.addresses.len()) else { return Answer::Later };
        let began = self.started.elapsed();
        self.requests.fetch_add(1, Ordering::Relaxed);
        let answer = timeout(ANSWER, exchange(address, &self.request(delivery, other_content))).await;
        let answer =
            answer.ok().and_then(Result::ok).map(|(status, body)| self.read(delivery, status, &body));
        match answer {
            Some(Answer::Stored(..)) => {
                let began = u64::try_from(began.as_millis()).unwrap_or(u64::MAX);
                self.latest_200.fetch_max(began, Ordering::Relaxed);
            }
            Some(Answer::OtherContent) => {}
            Some(Answer::Later) | None => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
        }
        answer.unwrap_or(Answer::Later)
    }

    fn read(&self, delivery: Delivery, status: u16, body: &str) -> Answer {
        let json: Value = serde_json::from_str(body).unwrap_or_default();
        let word = json.get("status").and_then(Value::as_str);
        match (status, word, json.get("email_id").and_then(Value::as_i64)) {
            (200, Some("accepted"), Some(id)) => Answer::Stored(false, id),
            (200, Some("duplicate"), Some(id)) => Answer::Stored(true, id),
            (422, _, _) => Answer::OtherContent,
            (408 | 409 | 429 | 503, _, _) => Answer::Later,
            _ => {
                self.breach(format!("{} was answered by {status}: {body}", delivery.id()));
                Answer::Later
            }
        }
    }

    fn request(&self, delivery: Delivery, other_content: bool) -> String {
        let body = delivery.body(other_content);
        let (path, headers) = if delivery.is_webhook() {
            ("/v1/webhooks/zendesk", self.verifier.sign(Timestamp::now(), body.as_bytes()))
        } else {
            let token = ("authorization", format!("Bearer {TOKEN}"));
            ("/v1/debt-updates", vec![token, ("idempotency-key", delivery.id())])
        };
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: ingest\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            let _ = write!(request, "{name}: {value}\r\n");
        }
        let _ = write!(request, "\r\n{body}");
        request
    }

    fn breach(&self, what: String) {
        self.breaches.lock().unwrap_or_else(PoisonError::into_inner).push((Breach::Wrong, what));
    }
}
