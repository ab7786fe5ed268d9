//! What a MongoDB error code does to a message, by a server that answers with each of them: an outage is never counted, a refusal is
//! told with its code, and what is over when the error is over is applied then.

use crate::{
    fleet::world_at,
    outages::until,
    world::{Update, World, seeblick, turmhaus},
};
use futures_util::future::join_all;
use mongodb::bson::{Document, Timestamp, doc, oid::ObjectId};
use relay::{
    context::Context,
    lane::{Summary, Trouble},
};
use shared::message::EmailId;
use testkit::ReplicaSet;

/// The server is away, elects, shuts down, or lacks what only it can get.
const SINK_DOWN: [i32; 28] = [
    6, 7, 24, 43, 46, 63, 89, 91, 133, 134, 146, 175, 189, 202, 211, 237, 262, 292, 365, 462, 9001, 10_058,
    10_107, 11_600, 11_602, 13_388, 13_435, 13_436,
];
/// A person has to give us the right to work.
const SINK_MISCONFIGURED: [i32; 6] = [13, 18, 79, 100, 8000, 14_031];
/// The command was ended in the middle.
const UNKNOWN_OUTCOME: [i32; 3] = [50, 64, 11_601];
/// The command will be refused each time. Without 121, which only a validator can bring about: `poison` has some.
const PERMANENT: [i32; 11] = [9, 14, 15, 22, 40, 52, 57, 66, 10_334, 11_000, 17_419];
/// Of all others: the list has moved, a rival wrote first, and some that nobody has heard of.
const TRANSIENT: [i32; 8] = [1, 2, 8, 28, 112, 125, 251, 999_999];

/// The creditor of the messages that a person has to see: they end without an update, so something of their batch gets through.
const UNSURE: &str = "konto@dritter.example";

/// A MongoDB that answers some commands of relays with an error, and messages for it. Each goes to an entry of its own, a later one
/// with a higher amount.
struct Faulty {
    set: ReplicaSet,
    world: World,
    relays: Vec<Context>,
    sent: u32,
}

impl Faulty {
    async fn new(relays: usize) -> Faulty {
        let set = ReplicaSet::new(1).await;
        let world = world_at(&set.url).await;
        let third = doc! { "id": "c", "sender_email": UNSURE };
        world.client(vec![turmhaus("a"), seeblick("b"), third]).await;
        // After some errors the driver takes the server for gone until its next look, else 10 s later.
        let config = world.config(&format!("{}&heartbeatFrequencyMS=500", set.url));
        let mut faulty = Faulty { set, world, relays: Vec::new(), sent: 0 };
        for _ in 0..relays {
            faulty.relays.push(relay::relay::context(&config).await.unwrap());
        }
        faulty
    }

    /// From now on: the relays' commands of this name, and nobody else's.
    async fn fails(&self, command: &str, mut how: Document) {
        how.extend(doc! { "failCommands": [command], "appName": "relay" });
        self.fail_point(doc! { "mode": "alwaysOn", "data": how }).await;
    }

    async fn fails_with(&self, command: &str, code: i32) {
        let mut how = doc! { "errorCode": code };
        // Some errors exist only with what they are about.
        if code == 11_000 {
            how.insert("errorExtraInfo", doc! { "keyPattern": { "id": 1 }, "keyValue": { "id": 1 } });
        } else if code == 13_388 {
            let (time, id) = (Timestamp { time: 0, increment: 0 }, ObjectId::new());
            let version = doc! { "t": time, "e": id, "v": time };
            how.insert("errorExtraInfo", doc! { "ns": "a.b", "vReceived": version, "shardId": "s" });
        }
        self.fails(command, how).await;
    }

    async fn fail_point(&self, how: Document) {
        let command = [doc! { "configureFailPoint": "failCommand" }, how].into_iter().flatten().collect();
        self.set.members[0].admin(command).await;
    }

    fn update(&mut self, creditor_email: &'static str) -> Update {
        self.sent += 1;
        let received_at = format!("2026-01-01T00:{:02}:{:02}Z", self.sent / 60, self.sent % 60).leak();
        Update { creditor_email, ..Update::of(&format!("{}.25", 1000 + self.sent), received_at) }
    }

    /// Two messages that nothing is wrong with.
    async fn commit(&mut self) -> [EmailId; 2] {
        let (one, two) = (self.update("konto@turmhaus.example"), self.update("post@seeblick.example"));
        [self.world.commit(one).await, self.world.commit(two).await]
    }

    async fn commit_unsure(&mut self) -> EmailId {
        let unsure = Update { confidence: Some(0.5), ..self.update(UNSURE) };
        self.world.commit(unsure).await
    }

    /// All relays at once, until nothing is due or the sink is in the way.
    async fn work(&self) -> Vec<(Summary, Result<(), Trouble>)> {
        join_all(self.relays.iter().map(|relay| self.world.try_once(relay))).await
    }

    /// What has been put off is due now.
    async fn go_on(&self) -> Vec<(Summary, Result<(), Trouble>)> {
        self.fail_point(doc! { "mode": "off" }).await;
        for relay in &self.relays {
            until(|| async { relay.clients.ping().await.is_ok() }).await;
        }
        self.world.run("update outbox_messages set available_at = now() where deferred").await;
        self.work().await
    }

    /// Every message is in this state, and those that are not at their end are free and tell this.
    async fn all_are(&self, emails: &[EmailId], state: &str, tells: &str) {
        for email in emails {
            let statement = "select concat(error_message), claimed_until is null and unfinished_claims = 0
                from outbox_messages where aggregate_id = $1::bigint::text";
            let row = self.world.sql.query_one(statement, &[email]).await.unwrap();
            let (text, is_free): (&str, bool) = (row.get(0), row.get(1));
            assert_eq!(self.world.state(*email).await, state, "{text}");
            assert!(text.contains(tells), "{text:?} should tell {tells:?}");
            assert!(is_free, "{tells}");
        }
    }

    /// Both entries carry the amount of their newest message.
    async fn carries_the_newest(&self, code: i32) {
        let newest = 1000.25 + f64::from(self.sent);
        assert_eq!(self.world.amount("b").await, Some(newest), "{code}");
        assert_eq!(self.world.amount("a").await, Some(newest - 1.0), "{code}");
    }
}

/// Given back uncounted, the whole lane told why, and applied as soon as the error is over.
async fn an_outage_is_never_counted(command: &str, relays: usize) {
    let mut faulty = Faulty::new(relays).await;
    let classes = [
        ("sink_down", &SINK_DOWN[..]),
        ("sink_misconfigured", &SINK_MISCONFIGURED),
        ("unknown_outcome", &UNKNOWN_OUTCOME),
    ];
    for (class, code) in classes.iter().flat_map(|(class, codes)| codes.iter().map(|code| (*class, *code))) {
        let unsure = faulty.commit_unsure().await;
        let emails = faulty.commit().await;
        faulty.fails_with(command, code).await;
        let runs = faulty.work().await;
        faulty.all_are(&emails, &format!("waiting/{class}/0"), &format!("MongoDB error {code} ")).await;
        if let [(summary, end)] = &*runs {
            assert!(
                matches!(end, Err(Trouble::Sink(failure)) if failure.class.name() == class),
                "{code}: {end:?}"
            );
            // The claim that was under way may have met what was just given back.
            assert!([3, 6].contains(&summary.claimed), "{code}: {summary:?}");
            let expected =
                Summary { claimed: summary.claimed, given_back: summary.claimed, ..Summary::default() };
            assert_eq!(*summary, expected, "{code}");
        }
        for email in emails {
            assert_eq!(faulty.world.shows(email).await, "extracted/-/pending", "{code}");
        }
        faulty.go_on().await;
        faulty.all_are(&emails, "done/applied/0", "").await;
        faulty.all_are(&[unsure], "done/held_for_review/0", "").await;
        faulty.carries_the_newest(code).await;
    }
}

#[tokio::test]
async fn an_update_that_fails_by_the_servers_fault_is_not_counted() {
    an_outage_is_never_counted("update", 1).await;
}

#[tokio::test]
async fn a_find_that_fails_by_the_servers_fault_is_not_counted() {
    an_outage_is_never_counted("find", 1).await;
}

#[tokio::test]
async fn two_relays_count_nothing_either_when_the_server_is_at_fault() {
    an_outage_is_never_counted("update", 2).await;
}

/// Dead at once, each by its own finish, with the code for the person who has to look; the next message goes its way.
#[tokio::test]
async fn a_command_that_is_refused_for_good_is_dead_with_the_code() {
    for relays in [1, 2] {
        let mut faulty = Faulty::new(relays).await;
        for code in PERMANENT {
            let emails = faulty.commit().await;
            faulty.fails_with("update", code).await;
            let runs = faulty.work().await;
            assert!(runs.iter().all(|(_, end)| end.is_ok()), "{code}: the lane goes on");
            faulty.all_are(&emails, "dead/permanent/1", &format!("MongoDB error {code} ")).await;
            let later = faulty.commit().await;
            faulty.go_on().await;
            faulty.all_are(&later, "done/applied/0", "").await;
            faulty.carries_the_newest(code).await;
        }
    }
}

/// Counted, since another message of the batch got through; tried again, and applied.
#[tokio::test]
async fn an_update_that_may_pass_the_next_time_is_counted_with_the_code_and_tried_again() {
    let mut faulty = Faulty::new(1).await;
    for code in TRANSIENT {
        let held = faulty.commit_unsure().await;
        let emails = faulty.commit().await;
        faulty.fails_with("update", code).await;
        let (summary, _) = faulty.work().await.remove(0);
        faulty.all_are(&[held], "done/held_for_review/0", "").await;
        // One that was due again at once met a batch of which nothing got through: given back, as below.
        assert_eq!((summary.held, summary.retried, summary.dead), (1, 2, 0), "{code}");
        let counted = format!(
            "select count(*) from outbox_messages where processed_at is null and retry_count = 1
            and error_class in ('transient', 'sink_down') and error_message like '%MongoDB error {code} %'"
        );
        assert_eq!(faulty.world.row(&counted).await.get::<_, i64>(0), 2, "{code}");
        faulty.go_on().await;
        faulty.all_are(&emails, "done/applied/1", "").await;
        faulty.carries_the_newest(code).await;
    }
}

/// Nothing got through at all, so nothing says that the messages are to blame.
#[tokio::test]
async fn an_error_that_nobody_knows_and_that_meets_everything_is_taken_for_an_outage() {
    for command in ["find", "update"] {
        let mut faulty = Faulty::new(1).await;
        for code in TRANSIENT {
            let emails = faulty.commit().await;
            faulty.fails_with(command, code).await;
            let (_, end) = faulty.work().await.remove(0);
            assert!(matches!(end, Err(Trouble::Sink(_))), "{code}: {end:?}");
            faulty.all_are(&emails, "waiting/sink_down/0", &format!("MongoDB error {code} ")).await;
            faulty.go_on().await;
            faulty.all_are(&emails, "done/applied/0", "").await;
        }
    }
}

/// The update has taken effect on the primary; whether the majority has it is found out by a majority read, not guessed.
#[tokio::test]
async fn an_update_without_its_majority_is_looked_for_and_found() {
    for relays in [1, 2] {
        let mut faulty = Faulty::new(relays).await;
        for code in [64, 79, 91, 100, 189, 11_600, 11_602] {
            let emails = faulty.commit().await;
            let error = doc! { "code": code, "errmsg": "waiting for replication" };
            faulty.fails("update", doc! { "writeConcernError": error }).await;
            faulty.work().await;
            // Until its journal is written the primary's own majority read does not show it.
            let waits = "select count(*) from outbox_messages where processed_at is null
                and (dead_at is not null or retry_count > 0 or error_class <> 'unknown_outcome')";
            assert_eq!(faulty.world.row(waits).await.get::<_, i64>(0), 0, "{code}");
            faulty.go_on().await;
            for email in emails {
                let state = faulty.world.state(email).await;
                assert!(["done/already/0", "done/applied/0"].contains(&&*state), "{code}: {state}");
            }
            faulty.carries_the_newest(code).await;
        }
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_not_counted() {
    for relays in [1, 2] {
        let mut faulty = Faulty::new(relays).await;
        for command in ["find", "update"] {
            let emails = faulty.commit().await;
            faulty.fails(command, doc! { "closeConnection": true }).await;
            faulty.work().await;
            faulty.all_are(&emails, "waiting/unknown_outcome/0", "network").await;
            faulty.go_on().await;
            faulty.all_are(&emails, "done/applied/0", "").await;
            faulty.carries_the_newest(0).await;
        }
    }
}

/// A single message that no server answers for is put off behind the others instead of stopping the lane.
#[tokio::test]
async fn one_message_alone_whose_outcome_stays_unknown_waits_uncounted_behind_the_others() {
    let mut faulty = Faulty::new(1).await;
    for code in UNKNOWN_OUTCOME {
        let update = faulty.update("konto@turmhaus.example");
        let email = faulty.world.commit(update).await;
        faulty.fails_with("update", code).await;
        assert_eq!(faulty.work().await.remove(0).1, Ok(()), "{code}");
        faulty.all_are(&[email], "waiting/unknown_outcome/0", &format!("MongoDB error {code} ")).await;
        assert!(faulty.world.row("select bool_or(deferred) from outbox_messages").await.get::<_, bool>(0));
        faulty.go_on().await;
        faulty.all_are(&[email], "done/applied/0", "").await;
    }
}
