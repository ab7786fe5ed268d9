//! Group commit: requests that wait at the same moment are stored in one transaction, and each gets its own answer.
//!
//! Natural batching: a worker takes what is waiting and starts at once, so nobody waits for company, and batches grow with the load.
//! A job belongs to the queue from its submission on: hyper drops a handler when its client hangs up, and a handler's time may end
//! before a commit does; neither cancels the commit. Whoever cannot be stored with the others (a rival holds the key, the database
//! refuses the row) goes alone, on a connection of its own, and never costs the others their answer.

use crate::{
    commit::{self, Answer, AnswerKind, CommitError, CommitLimits, CommitRequest, Holder},
    config::Config,
    database::{Database, abandon},
    poke::Poker,
    problem::Problem,
    request_body::HeldBody,
};
use deadpool_postgres::Client;
use shared::message::EmailId;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Mutex, Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_postgres::error::SqlState;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Batches under way at once: one is parsed and planned while another waits for the disk.
const WORKERS: usize = 4;
/// Raw bytes of one statement; a single request may be larger.
const BATCH_BYTES: usize = 4 << 20;
/// How long a batch waits for a rival with one of its keys, before each goes alone.
const BATCH_LOCK_WAIT: Duration = Duration::from_millis(50);
/// After it a commit that Postgres does not answer is given up, with its connection; its outcome is unknown. Longer than any
/// handler waits, so that a slow commit can still end well for the sender's next try.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The queue and its workers.
#[derive(Debug)]
pub struct GroupCommit {
    queue: mpsc::Sender<Job>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// A request that waits for its answer; the bytes count until it is answered.
#[derive(Debug)]
struct Job {
    request: CommitRequest,
    _held: HeldBody,
    answer: oneshot::Sender<Result<Answer, Problem>>,
}

/// Jobs with the same key, in the order of their arrival: the first is stored, the others are answered from it.
struct Group {
    key: String,
    jobs: Vec<Job>,
}

#[derive(Clone)]
struct Worker {
    queue: Arc<Mutex<mpsc::Receiver<Job>>>,
    closing: CancellationToken,
    tasks: TaskTracker,
    database: Arc<Database>,
    poker: Poker,
    batch_max: usize,
    limits: CommitLimits,
    /// Leave to take a connection for what goes alone: the batches keep theirs.
    alone: Arc<Semaphore>,
}

impl GroupCommit {
    /// Starts the workers.
    #[must_use]
    pub fn start(config: &Config, database: Arc<Database>, poker: Poker) -> GroupCommit {
        let (sender, receiver) = mpsc::channel(config.queue_rows);
        let worker = Worker {
            queue: Arc::new(Mutex::new(receiver)),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            database,
            poker,
            batch_max: config.batch_max,
            limits: CommitLimits { lock_wait: config.lock_wait, key_lifetime: config.key_lifetime },
            alone: Arc::new(Semaphore::new(config.pool_size.saturating_sub(WORKERS).max(1))),
        };
        // Without batches it takes every connection to keep the disk busy.
        let workers = if config.batch_max == 1 { config.pool_size } else { WORKERS.min(config.pool_size) };
        for _ in 0..workers {
            worker.tasks.spawn(worker.clone().run());
        }
        GroupCommit { queue: sender, closing: worker.closing, tasks: worker.tasks }
    }

    /// Puts a request into the queue. Its answer comes, whether or not anybody waits for it.
    ///
    /// # Errors
    /// [`Problem::Overloaded`] when the queue is full.
    pub fn submit(
        &self,
        request: CommitRequest,
        held: HeldBody,
    ) -> Result<oneshot::Receiver<Result<Answer, Problem>>, Problem> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Job { request, _held: held, answer }).map_err(|_| Problem::Overloaded)?;
        Ok(answered)
    }

    /// Ends when no commit waits or runs any more, those whose client has left included. For the end of the program.
    pub async fn all_committed(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Job {
    fn end(self, answer: Result<Answer, Problem>) {
        let _ = self.answer.send(answer); // a client that has left hears nothing
    }
}

impl Worker {
    async fn run(self) {
        while let Some(jobs) = self.take().await {
            // In a task of its own: a worker outlives whatever happens to a batch.
            if let Err(error) = self.tasks.spawn(self.clone().carry(jobs)).await {
                tracing::error!(panicked = error.is_panic(), "a commit task died");
            }
        }
    }

    /// What is waiting, at least one; None at the end of the program.
    async fn take(&self) -> Option<Vec<Job>> {
        let mut queue = self.queue.lock().await;
        let mut jobs = Vec::new();
        loop {
            tokio::select! {
                count = queue.recv_many(&mut jobs, self.batch_max) => return (count > 0).then_some(jobs),
                () = self.closing.cancelled(), if !queue.is_closed() => queue.close(),
            }
        }
    }

    async fn carry(self, jobs: Vec<Job>) {
        metrics::histogram!("ingest_batch_rows").record(jobs.len() as f64);
        let client = match self.database.client().await {
            Ok(client) => client,
            Err(problem) => return jobs.into_iter().for_each(|job| job.end(Err(problem.clone()))),
        };
        let mut parts = parts(groups(jobs));
        while let Some(mut part) = parts.pop() {
            let began = Instant::now();
            let Ok(stored) = timeout(COMMIT_TIMEOUT, self.store(&client, &part)).await else {
                abandon(client);
                tracing::warn!("Postgres did not answer a commit; its outcome is unknown");
                end_all(part, &Problem::OutcomeUnknown);
                return parts.into_iter().for_each(|part| end_all(part, &Problem::Unavailable)); // never sent
            };
            metrics::histogram!("ingest_commit_seconds").record(began.elapsed().as_secs_f64());
            match stored {
                Ok((stored, holders)) => self.settle(part, &stored, holders),
                Err(error)
                    if commit::is_conflict(&error) || error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) =>
                {
                    self.each_alone(part);
                }
                Err(error) if commit::is_a_rows_fault(&error) && part.len() > 1 => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                Err(error) if commit::is_a_rows_fault(&error) => self.each_alone(part),
                Err(error) => end_all(part, &problem(&commit::classify(error), "several")),
            }
            if client.is_closed() {
                return parts.into_iter().for_each(|part| end_all(part, &Problem::Unavailable)); // never sent
            }
        }
    }

    /// Stores the first of each group; the mails of those that were new, and who has the keys of the others.
    async fn store(
        &self,
        client: &Client,
        part: &[Group],
    ) -> Result<(HashMap<String, EmailId>, HashMap<String, Holder>), tokio_postgres::Error> {
        let requests: Vec<_> =
            part.iter().filter_map(|group| group.jobs.first()).map(|job| &job.request).collect();
        let limits = CommitLimits { lock_wait: self.limits.lock_wait.min(BATCH_LOCK_WAIT), ..self.limits };
        let stored = commit::store(client, &requests, limits).await?;
        if !stored.is_empty() {
            self.poker.poke();
        }
        let others: Vec<_> =
            part.iter().map(|group| group.key.as_str()).filter(|key| !stored.contains_key(*key)).collect();
        let holders =
            if others.is_empty() { HashMap::new() } else { commit::holders(client, &others).await? };
        Ok((stored, holders))
    }

    fn settle(
        &self,
        part: Vec<Group>,
        stored: &HashMap<String, EmailId>,
        mut holders: HashMap<String, Holder>,
    ) {
        for Group { key, jobs } in part {
            let new = stored.get(&key);
            let holder = match (new, jobs.first()) {
                (Some(email_id), Some(Job { request, .. })) => {
                    Some(Holder { fingerprint: request.fingerprint, email_id: *email_id, is_expired: false })
                }
                _ => holders.remove(&key).filter(|holder| !holder.is_expired),
            };
            let Some(holder) = holder else {
                self.alone(jobs);
                continue;
            };
            for (place, job) in jobs.into_iter().enumerate() {
                let answer = match place {
                    0 if new.is_some() => {
                        Ok(Answer { kind: AnswerKind::Accepted, email_id: holder.email_id })
                    }
                    _ => holder.answer(&job.request).map_err(|error| problem(&error, job.request.source)),
                };
                job.end(answer);
            }
        }
    }

    fn each_alone(&self, part: Vec<Group>) {
        part.into_iter().for_each(|group| self.alone(group.jobs));
    }

    /// Jobs of one key, one after the other, with all their patience, on one of the connections that batches leave. What keeps the
    /// first from an answer keeps the others too.
    fn alone(&self, jobs: Vec<Job>) {
        metrics::counter!("ingest_committed_alone_total").increment(1);
        let worker = self.clone();
        self.tasks.spawn(async move {
            let _leave = worker.alone.acquire().await;
            let mut waiting = None;
            for job in jobs {
                let answer = match waiting.clone() {
                    Some(problem) => Err(problem),
                    None => worker.commit(&job.request).await,
                };
                waiting = waiting.or(answer.as_ref().err().filter(|problem| problem.passes()).cloned());
                job.end(answer);
            }
        });
    }

    async fn commit(&self, request: &CommitRequest) -> Result<Answer, Problem> {
        let client = self.database.client().await?;
        let Ok(result) = timeout(COMMIT_TIMEOUT, commit::commit(&client, request, self.limits)).await else {
            abandon(client);
            tracing::warn!("Postgres did not answer a commit; its outcome is unknown");
            return Err(Problem::OutcomeUnknown);
        };
        let answer = result.map_err(|error| problem(&error, request.source))?;
        if answer.kind == AnswerKind::Accepted {
            self.poker.poke();
        }
        Ok(answer)
    }
}

/// By key, in the order of arrival.
fn groups(jobs: Vec<Job>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::with_capacity(jobs.len());
    let mut places = HashMap::new();
    for job in jobs {
        let key = job.request.key();
        match places.get(&key).and_then(|place: &usize| groups.get_mut(*place)) {
            Some(group) => group.jobs.push(job),
            None => {
                places.insert(key.clone(), groups.len());
                groups.push(Group { key, jobs: vec![job] });
            }
        }
    }
    groups
}

/// Cut where a statement would become too large; the last part comes first, to be popped last.
fn parts(groups: Vec<Group>) -> Vec<Vec<Group>> {
    let mut parts: Vec<Vec<Group>> = Vec::new();
    let mut bytes = 0;
    for group in groups {
        let size = group.jobs.first().map_or(0, |job| job.request.raw.len());
        match parts.last_mut().filter(|_| bytes + size <= BATCH_BYTES) {
            Some(part) => part.push(group),
            None => {
                bytes = 0;
                parts.push(vec![group]);
            }
        }
        bytes += size;
    }
    parts.reverse();
    parts
}

fn end_all(part: Vec<Group>, problem: &Problem) {
    part.into_iter().flat_map(|group| group.jobs).for_each(|job| job.end(Err(problem.clone())));
}

/// What the client is told; what the operator has to know is logged here, once.
fn problem(error: &CommitError, source: &str) -> Problem {
    match error {
        CommitError::Mismatch => Problem::KeyReused,
        CommitError::RivalInFlight => Problem::RivalInFlight,
        CommitError::Unavailable(_) => {
            tracing::warn!(%error, "not stored, or unknown whether stored; the sender is asked to repeat");
            Problem::OutcomeUnknown
        }
        CommitError::Refused(_) => {
            tracing::error!(%error, source, "a request could not be stored");
            Problem::Internal
        }
    }
}
