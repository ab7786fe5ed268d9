//! Messages that each have a client of their own, so that none hides another, and relays with settings of a test's own.

use crate::{bad_input::healthy, outages::until, world::World};
use futures_util::future::join_all;
use mongodb::bson::doc;
use std::{
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// The messages that have been committed; none of them with a poke.
pub(crate) struct Feed<'a> {
    world: &'a World,
    pub(crate) sent: usize,
}

impl<'a> Feed<'a> {
    pub(crate) fn new(world: &'a World) -> Feed<'a> {
        Feed { world, sent: 0 }
    }

    pub(crate) async fn commit(&mut self, count: usize) {
        let end = self.sent + count;
        while self.sent < end {
            let next = end.min(self.sent + 100);
            join_all((self.sent..next).map(|number| healthy(self.world, number))).await;
            self.sent = next;
        }
    }

    /// Waits until every message has ended: well, decided once, never counted, and everything written once and right.
    pub(crate) async fn all_end_well(&self) {
        let left = "select count(*) = 0 from outbox_messages where processed_at is null and dead_at is null";
        until(|| async { self.world.row(left).await.get(0) }).await;
        let counts = "select count(*), count(*) filter (where outcome in ('applied', 'already') and retry_count = 0
                and unfinished_claims = 0 and sync_status = 'synced' and sync_retry_count = 0 and sync_error is null
                and d.count = 1),
                (select count(*) from creditor_debts where amount = 1234.56), (select count(*) from creditor_debts)
            from outbox_messages o join incoming_emails m on m.id = o.aggregate_id::bigint
            left join (select message_id, count(*) from decisions group by message_id) d on d.message_id = o.id";
        let row = self.world.row(counts).await;
        let counts = [0, 1, 2, 3].map(|column| row.get::<_, i64>(column));
        assert_eq!(
            counts, [self.sent as i64; 4],
            "messages, well ended, right amounts and all of the ledger"
        );
        let written = doc! { "final_creditor_list.current_debt_amount": 1234.56 };
        assert_eq!(self.world.mongo.clients.count_documents(written).await.unwrap(), self.sent as u64);
    }
}

/// `relay run` as a process, with what it has said so far.
pub(crate) struct Relay {
    process: Child,
    log: Arc<Mutex<String>>,
}

impl Relay {
    /// On the servers of the world, but for these settings.
    pub(crate) fn start(world: &World, settings: &[(&str, &str)]) -> Relay {
        let mut command = world.program(&world.mongo.url, &["run"]);
        let mut process = command.envs(settings.iter().copied()).stdout(Stdio::null()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (mut lines, heard) = (BufReader::new(process.stderr.take().unwrap()).lines(), log.clone());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("{line}");
                heard.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Relay { process, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// Waits until it has said this.
    pub(crate) async fn says(&self, text: &str) {
        self.says_one_of(&[text]).await;
    }

    /// Waits until it has said one of these.
    pub(crate) async fn says_one_of(&self, texts: &[&str]) {
        until(|| async {
            let log = self.log.lock().unwrap();
            texts.iter().any(|text| log.contains(text))
        })
        .await;
    }

    /// Whether it has said this until now.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        self.log.lock().unwrap().contains(text)
    }

    /// Where its admin listener is, once it is there.
    pub(crate) async fn admin(&self) -> String {
        self.says("relay started admin=").await;
        let log = self.log.lock().unwrap().clone();
        log.split("relay started admin=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
    }

    /// Asks it to end; its exit code.
    pub(crate) async fn terminate(mut self) -> Option<i32> {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        self.process.wait().await.unwrap().code()
    }

    /// Kills it and waits until it is gone; what it held, it holds until its lease ends.
    pub(crate) async fn kill(mut self) -> Leases {
        let pid = self.pid();
        self.process.kill().await.unwrap();
        Leases { pid }
    }

    pub(crate) fn is_at_work(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

/// What a killed relay still holds.
#[must_use]
pub(crate) struct Leases {
    pid: u32,
}

impl Leases {
    /// As if they had ended: that takes up to a minute, and nothing is learnt from waiting for it. A claim that was on its way when
    /// the relay was killed may take the message after this, so this is repeated until the test ends.
    pub(crate) async fn end(self, world: &World) {
        let ended = "update outbox_messages set claimed_until = now() - interval '1 second'
            where claimed_by like '%:PID' and claimed_until > now()";
        let ended = ended.replace("PID", &self.pid.to_string());
        world.run(&ended).await;
        let sql = world.database.client().await;
        tokio::spawn(async move {
            while sql.batch_execute(&ended).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
}
