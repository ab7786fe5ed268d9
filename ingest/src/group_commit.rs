//! Group commit: requests that wait at the same moment are stored in one transaction, and each gets its own answer.
//!
//! Natural batching: a worker takes what is waiting and starts at once, so nobody waits for company, and batches grow with the load.
//! A job belongs to the queue from its submission on: hyper drops a handler when its client hangs up, and a handler's time may end
//! before a commit does; neither cancels the commit. Whoever cannot be stored with the others (a rival holds the key, the database
//! refuses the row) goes alone, on a connection of its own, and never costs the others their answer. A commit that Postgres does not
//! answer goes on by itself when everybody has given up waiting for it; its connection counts against the pool until then.

use crate::{
    commit::{self, Answer, AnswerKind, CommitError, CommitLimits, CommitRequest, Holder, Known},
    config::Config,
    database::{Database, answer},
    poke::Poker,
    problem::Problem,
    request_body::HeldBody,
    telemetry::Full,
};
use shared::{
    message::EmailId,
    postgres::{Connection, abandon},
};
use std::{
    collections::HashMap,
    iter,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Batches under way at once: one is parsed and planned while another waits for the disk.
const WORKERS: usize = 4;
/// Raw bytes of one statement; a single request may be larger.
const BATCH_BYTES: usize = 4 << 20;
/// How long a batch waits for a rival with one of its keys, before each goes alone.
const BATCH_LOCK_WAIT: Duration = Duration::from_millis(50);

/// The queue and its workers.
#[derive(Debug)]
pub struct GroupCommit {
    queue: mpsc::UnboundedSender<Job>,
    /// The bound of the queue: one for each job until it is answered.
    places: Arc<Semaphore>,
    rows: usize,
    closing: CancellationToken,
    tasks: TaskTracker,
    progress: Arc<Progress>,
}

/// Jobs that went into the queue, and that were taken out of it.
#[derive(Debug, Default)]
struct Progress {
    submitted: AtomicU64,
    taken: AtomicU64,
}

/// A request that waits for its answer; its bytes and its place count until it is answered.
#[derive(Debug)]
struct Job {
    request: CommitRequest,
    submitted: Instant,
    _held: HeldBody,
    _place: OwnedSemaphorePermit,
    answer: oneshot::Sender<Result<Answer, Problem>>,
}

/// Jobs with the same key: the one that came first is stored, its repeats are answered from it.
struct Group {
    key: String,
    first: Job,
    repeats: Vec<Job>,
}

/// What came of a part.
enum Stored {
    /// The mails of those that were new, and who has the keys of the others.
    New(HashMap<String, EmailId>, HashMap<String, Holder>),
    /// None is stored, since the deliveries of some are: which are known, in their order.
    Not(Vec<Option<Known>>),
}

#[derive(Clone)]
struct Worker {
    queue: Arc<Mutex<mpsc::UnboundedReceiver<Job>>>,
    closing: CancellationToken,
    tasks: TaskTracker,
    database: Arc<Database>,
    poker: Poker,
    batch_max: usize,
    limits: CommitLimits,
    progress: Arc<Progress>,
    /// Leave to take a connection for what goes alone: the batches keep theirs.
    alone: Arc<Semaphore>,
}

impl GroupCommit {
    /// Starts the workers.
    #[must_use]
    pub fn start(config: &Config, database: Arc<Database>, poker: Poker) -> GroupCommit {
        let (sender, receiver) = mpsc::unbounded_channel();
        let pool_size = config.limits.pool_size;
        // Without batches it takes most connections to keep the disk busy; some are left for what goes alone.
        let workers =
            if config.limits.batch_max == 1 { pool_size * 3 / 4 } else { WORKERS.min(pool_size - 1) };
        let workers = workers.max(1);
        let worker = Worker {
            queue: Arc::new(Mutex::new(receiver)),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            database,
            poker,
            batch_max: config.limits.batch_max,
            limits: CommitLimits {
                lock_wait: config.limits.lock_wait,
                key_lifetime: config.limits.key_lifetime,
            },
            progress: Arc::default(),
            alone: Arc::new(Semaphore::new((pool_size - workers).max(1))),
        };
        for _ in 0..workers {
            worker.tasks.spawn(worker.clone().run());
        }
        let rows = config.limits.queue_rows;
        let places = Arc::new(Semaphore::new(rows));
        let Worker { closing, tasks, progress, .. } = worker;
        GroupCommit { queue: sender, places, rows, closing, tasks, progress }
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
        let place = self.places.clone().try_acquire_owned().map_err(|_| Full::Queue.shed())?;
        let (answer, answered) = oneshot::channel();
        let job = Job { request, submitted: Instant::now(), _held: held, _place: place, answer };
        self.queue.send(job).map_err(|_| Full::Queue.shed())?; // the program ends
        self.progress.submitted.fetch_add(1, Relaxed);
        Ok(answered)
    }

    /// Requests without an answer yet.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.rows.saturating_sub(self.places.available_permits())
    }

    /// Tells, when asked now and then, whether the workers do their part: no job waits, or one was taken within `patience`. It has to be
    /// longer than a worker waits for a commit; then a Postgres that does not answer is no standstill.
    pub fn makes_progress(&self, patience: Duration) -> impl FnMut() -> bool + use<> {
        let (progress, mut seen) = (Arc::clone(&self.progress), (0, Instant::now()));
        move || {
            let (taken, submitted) = (progress.taken.load(Relaxed), progress.submitted.load(Relaxed));
            if taken != seen.0 || submitted <= taken {
                seen = (taken, Instant::now());
            }
            seen.1.elapsed() < patience
        }
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

    /// A repeat of what is stored, or other content under its name.
    fn answer_from(self, holder: &Holder) {
        let answer = holder.answer(&self.request).map_err(|error| problem(&error, Some(&self.request)));
        self.end(answer);
    }
}

impl Group {
    /// In the order of their arrival.
    fn into_jobs(self) -> impl Iterator<Item = Job> {
        iter::once(self.first).chain(self.repeats)
    }

    fn answer_from(self, holder: &Holder) {
        self.into_jobs().for_each(|job| job.answer_from(holder));
    }
}

impl Worker {
    async fn run(self) {
        while let Some(jobs) = self.take().await {
            // In a task of its own: a worker outlives whatever happens to a batch.
            let carrying = self.tasks.spawn(self.clone().carry(jobs));
            if let Some(Err(error)) = self.database.wait_for(carrying).await {
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
                count = queue.recv_many(&mut jobs, self.batch_max) => {
                    self.progress.taken.fetch_add(count as u64, Relaxed);
                    return (count > 0).then_some(jobs);
                }
                () = self.closing.cancelled(), if !queue.is_closed() => queue.close(),
            }
        }
    }

    async fn carry(self, jobs: Vec<Job>) {
        metrics::histogram!("ingest_batch_rows").record(jobs.len() as f64);
        if let Some(job) = jobs.first() {
            metrics::histogram!("ingest_queue_duration_seconds")
                .record(job.submitted.elapsed().as_secs_f64());
        }
        let client = match self.database.client().await {
            Ok(client) => client,
            Err(problem) => {
                if problem == Problem::Overloaded {
                    Full::Pool.shed_more(jobs.len() as u64 - 1); // one is counted
                }
                return jobs.into_iter().for_each(|job| job.end(Err(problem.clone())));
            }
        };
        let mut parts = parts(groups(jobs));
        while let Some(mut part) = parts.pop() {
            let began = Instant::now();
            let Some(stored) = answer(self.store(&client, &part)).await else {
                tracing::warn!("Postgres did not answer a commit; its outcome is unknown");
                end_all(part, &Problem::OutcomeUnknown);
                abandon(client).await;
                break;
            };
            metrics::histogram!("ingest_commit_duration_seconds").record(began.elapsed().as_secs_f64());
            match stored {
                Ok(Stored::New(stored, holders)) => self.settle(part, &stored, holders),
                Ok(Stored::Not(known)) => {
                    let rest: Vec<_> = part.into_iter().zip(known).filter_map(without_the_known).collect();
                    parts.extend(Some(rest).filter(|rest| !rest.is_empty()));
                }
                Err(error) if commit::is_contested(&error) => self.each_alone(part),
                // Halving finds who is to blame.
                Err(error) if commit::may_be_a_rows_fault(&error) && part.len() > 1 => {
                    metrics::counter!("ingest_batch_splits_total").increment(1);
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                Err(error) if commit::may_be_a_rows_fault(&error) => self.each_alone(part),
                Err(error) => end_all(part, &problem(&commit::classify(error), None)),
            }
            if client.is_closed() {
                break;
            }
        }
        parts.into_iter().for_each(|part| end_all(part, &Problem::Unavailable)); // never sent
    }

    /// Stores the first of each group, or finds out which of them are stored already.
    async fn store(&self, client: &Connection, part: &[Group]) -> Result<Stored, tokio_postgres::Error> {
        let limits = CommitLimits { lock_wait: self.limits.lock_wait.min(BATCH_LOCK_WAIT), ..self.limits };
        let requests = firsts(part);
        let stored = match commit::store(client, &requests, limits).await {
            Ok(stored) => stored,
            Err(error) if commit::broke_webhook_unique(&error) => {
                let known = commit::known(client, &requests).await?;
                let is_known = known.iter().any(Option::is_some);
                return if is_known { Ok(Stored::Not(known)) } else { Err(error) };
            }
            Err(error) => return Err(error),
        };
        if !stored.is_empty() {
            self.poker.poke();
        }
        let others: Vec<_> =
            part.iter().map(|group| group.key.as_str()).filter(|key| !stored.contains_key(*key)).collect();
        let holders =
            if others.is_empty() { HashMap::new() } else { commit::holders(client, &others).await? };
        Ok(Stored::New(stored, holders))
    }

    fn settle(
        &self,
        part: Vec<Group>,
        stored: &HashMap<String, EmailId>,
        mut holders: HashMap<String, Holder>,
    ) {
        for group in part {
            if let Some(email_id) = stored.get(&group.key) {
                let Group { first, repeats, .. } = group;
                let fingerprint = Some(first.request.fingerprint);
                first.end(Ok(Answer { kind: AnswerKind::Accepted, email_id: *email_id }));
                let holder = Holder { fingerprint, email_id: *email_id, is_expired: false };
                repeats.into_iter().for_each(|job| job.answer_from(&holder));
            } else if let Some(holder) = holders.remove(&group.key).filter(|holder| !holder.is_expired) {
                group.answer_from(&holder);
            } else {
                self.alone(group);
            }
        }
    }

    fn each_alone(&self, part: Vec<Group>) {
        part.into_iter().for_each(|group| self.alone(group));
    }

    /// Jobs of one key, one after the other, with all their patience, on one of the connections that batches leave. What keeps the
    /// first from an answer keeps the others too.
    fn alone(&self, group: Group) {
        metrics::counter!("ingest_committed_alone_total").increment(1);
        let worker = self.clone();
        self.tasks.spawn(async move {
            let _leave = worker.alone.acquire().await;
            let mut waiting = None;
            for job in group.into_jobs() {
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
        let Some(result) = answer(commit::commit(&client, request, self.limits)).await else {
            tracing::warn!("Postgres did not answer a commit; its outcome is unknown");
            abandon(client).await;
            return Err(Problem::OutcomeUnknown);
        };
        let answer = result.map_err(|error| problem(&error, Some(request)))?;
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
            Some(group) => group.repeats.push(job),
            None => {
                places.insert(key.clone(), groups.len());
                groups.push(Group { key, first: job, repeats: Vec::new() });
            }
        }
    }
    groups
}

/// Answers whose key is taken, or whose delivery is stored although its key is not. In the latter case other content under that key
/// may be new.
fn without_the_known((mut group, known): (Group, Option<Known>)) -> Option<Group> {
    let holder = match known {
        None => return Some(group),
        Some(Known::ByKey(holder)) => {
            group.answer_from(&holder);
            return None;
        }
        Some(Known::ByDelivery(holder)) => holder,
    };
    let fingerprint = group.first.request.fingerprint;
    let repeats = std::mem::take(&mut group.repeats).into_iter();
    let (same, others): (Vec<_>, Vec<_>) = repeats.partition(|job| job.request.fingerprint == fingerprint);
    iter::once(group.first).chain(same).for_each(|job| job.answer_from(&holder));
    let mut others = others.into_iter();
    let first = others.next()?;
    Some(Group { key: group.key, first, repeats: others.collect() })
}

/// Cut where a statement would become too large; the last part comes first, to be popped last.
fn parts(groups: Vec<Group>) -> Vec<Vec<Group>> {
    let mut parts: Vec<Vec<Group>> = Vec::new();
    let mut bytes = 0;
    for group in groups {
        let size = group.first.request.raw.len();
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

/// The first of each group: who is stored.
fn firsts(part: &[Group]) -> Vec<&CommitRequest> {
    part.iter().map(|group| &group.first.request).collect()
}

fn end_all(part: Vec<Group>, problem: &Problem) {
    part.into_iter().flat_map(Group::into_jobs).for_each(|job| job.end(Err(problem.clone())));
}

/// What the client is told; what the operator has to know is logged here, once. None: several requests.
fn problem(error: &CommitError, request: Option<&CommitRequest>) -> Problem {
    let source = request.map_or("several", |request| request.source);
    let trace_id = request.map(|request| tracing::field::display(request.traceparent.trace_id()));
    match error {
        CommitError::Mismatch => Problem::KeyReused,
        CommitError::RivalInFlight => Problem::RivalInFlight,
        CommitError::Unavailable(_) => {
            tracing::warn!(%error, source, trace_id, "not stored, or unknown whether stored; the sender is asked to repeat");
            Problem::OutcomeUnknown
        }
        CommitError::Refused(_) => {
            tracing::error!(%error, source, trace_id, "a request could not be stored");
            Problem::Internal
        }
    }
}
