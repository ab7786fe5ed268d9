//! The threads that read mails: pure computation, off those that serve the network.
//!
//! They live as long as the process. A pattern keeps working memory for the threads that use it, some 36 MiB for all patterns
//! together; on tokio's threads for blocking work, of which there are many and new ones again and again, a relay came to
//! 320 MiB.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock, Mutex, PoisonError, mpsc},
    thread,
};
use tokio::sync::oneshot;

/// So that a mail of a MiB does not keep all the others waiting.
const THREADS: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

/// What waits here is bounded by the batches in flight.
static JOBS: LazyLock<io::Result<mpsc::Sender<Job>>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::channel::<Job>();
    let jobs = Arc::new(Mutex::new(jobs));
    for _ in 0..THREADS {
        let jobs = jobs.clone();
        let work = move || {
            let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            while let Ok(job) = next() {
                let _ = catch_unwind(AssertUnwindSafe(job)); // whoever waits for it sees that no answer comes
            }
        };
        thread::Builder::new().name("reading".into()).spawn(work)?;
    }
    Ok(sender)
});

/// Starts them, so that a system that has no threads left is told at the start and not by the first mail.
pub(crate) fn start() -> Result<(), String> {
    JOBS.as_ref().map(drop).map_err(|error| format!("no thread to read mails with: {error}"))
}

/// Does the work on one of the threads; None if it panicked.
pub(crate) async fn on_its_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    let job: Job = Box::new(move || drop(reply.send(work()))); // nobody may want it any more
    JOBS.as_ref().ok()?.send(job).ok()?;
    answer.await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, thread::ThreadId};

    #[tokio::test]
    async fn all_work_is_done_by_the_same_few_threads_and_a_panic_ends_none_of_them() {
        let mut threads: HashSet<ThreadId> = HashSet::new();
        for _ in 0..20 {
            assert_eq!(on_its_thread(|| -> u8 { panic!("a panic of this test") }).await, None);
            threads.extend(on_its_thread(|| thread::current().id()).await);
        }
        assert!((1..=THREADS).contains(&threads.len()), "{threads:?}");
    }
}
