//! A 200 outlives everything: whatever ends in between, the mail is there, once, with its key and its first message.

use crate::harness::*;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use testkit::{Database, PostgresServer, Wire};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

const SENDERS: usize = 16;

/// Senders that deliver mail after mail until they are stopped, each again and again until it is answered by a 200.
struct Senders {
    tasks: JoinSet<HashMap<String, i64>>,
    stop: Arc<AtomicBool>,
}

impl Senders {
    /// To each service in turn, a repeat to another one.
    fn start(services: &Arc<Vec<Service>>) -> Senders {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for sender in 0..SENDERS {
            let (services, stop) = (services.clone(), stop.clone());
            tasks.spawn(async move {
                let mut stored = HashMap::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = format!("s{sender}-{number}");
                    let mut turn = number;
                    let answer = loop {
                        let answer = services[turn % services.len()].zendesk(&mail(&id)).await;
                        turn += 1;
                        if answer.status == 200 {
                            break answer;
                        }
                        answer.is_problem(
                            503,
                            if answer.json()["type"] == "/problems/overloaded" {
                                "overloaded"
                            } else {
                                "unavailable"
                            },
                        );
                        sleep(Duration::from_millis(20)).await;
                    };
                    stored.insert(id, answer.json()["email_id"].as_i64().unwrap());
                }
                stored
            });
        }
        Senders { tasks, stop }
    }

    /// What was answered by a 200: provider's id and mail.
    async fn stop(self) -> HashMap<String, i64> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_200_survives_crashes_of_postgres_under_load() {
    let mut server = PostgresServer::new().await;
    let mut services = Vec::new();
    for _ in 0..2 {
        services.push(Service::start(config(&server.url)).await);
    }
    let services = Arc::new(services);
    let senders = Senders::start(&services);
    for _ in 0..3 {
        sleep(Duration::from_millis(700)).await;
        server.crash();
        sleep(Duration::from_millis(300)).await;
        server.start().await;
    }
    sleep(Duration::from_millis(500)).await;
    let stored = timeout(PATIENCE, senders.stop()).await.unwrap();
    let client = shared::postgres::connect(&server.url, "test").await.unwrap();
    assert!(stored.len() > 10 * SENDERS, "{}", stored.len());
    for (id, email_id) in &stored {
        let found =
            client.query_one("select id from incoming_emails where webhook_id = $1", &[id]).await.unwrap();
        assert_eq!(found.get::<_, i64>(0), *email_id, "{id}");
    }
    // A repeat of what was stored without an answer was a duplicate: nothing is there twice.
    let count = i64::try_from(stored.len()).unwrap();
    assert_eq!(rows(&client).await, [count; 3]);
    assert_whole(&client).await;
}

/// The two services' answers to the first and the second delivery of a mail whose commit was cut where the wire was held.
async fn cut_and_repeated(reply: bool) -> (Answer, Answer, [i64; 3]) {
    let database = Database::new().await;
    let wire = Wire::before(&database.url).await;
    let service = Arc::new(Service::start(config(&wire.instead(&database.url))).await);
    service.zendesk(&mail("first")).await.email_id("accepted");
    // The mail's own words: the statement itself is prepared already.
    let words = b"delivery-to-be-cut";
    let held = if reply { wire.hold_reply_to(words) } else { wire.hold_request(words) };
    let delivery = mail("delivery-to-be-cut");
    let sender = service.clone();
    let asking = tokio::spawn(async move { sender.zendesk(&delivery).await });
    let go_on = held.reached().await;
    wire.cut();
    drop(go_on);
    let lost = timeout(PATIENCE, asking).await.unwrap().unwrap();
    wire.mend();
    let again = service.zendesk(&mail("delivery-to-be-cut")).await;
    (lost, again, rows(&database.client().await).await)
}

#[tokio::test]
async fn a_commit_that_never_reached_postgres_is_a_503_and_the_repeat_is_accepted() {
    let (lost, again, rows) = cut_and_repeated(false).await;
    lost.is_problem(503, "unavailable");
    again.email_id("accepted");
    assert_eq!(rows, [2, 2, 2]);
}

#[tokio::test]
async fn a_commit_whose_reply_is_lost_is_a_503_and_the_repeat_is_a_duplicate() {
    let (lost, again, rows) = cut_and_repeated(true).await;
    let problem = lost.is_problem(503, "unavailable");
    assert!(problem["detail"].as_str().unwrap().starts_with("It may or may not"), "{problem}");
    again.email_id("duplicate");
    assert_eq!(rows, [2, 2, 2]);
}
