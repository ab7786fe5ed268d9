//! `relay run --shadow`: decides and records beside the old service, writes nothing; and the comparison of the two.

use crate::world::{Update, World, seeblick, turmhaus};
use mongodb::bson::{Document, doc};
use relay::relay::is_admitted;
use serde_json::Value;
use tokio::io::AsyncBufReadExt;
use tokio_util::sync::CancellationToken;

struct Shadow(World);

impl Shadow {
    async fn new() -> Shadow {
        let world = World::new().await;
        let mut entry = turmhaus("b");
        entry.insert("current_debt_amount", 500.0);
        world.client(vec![entry, seeblick("a")]).await;
        Shadow(world)
    }

    async fn once(&self) {
        let (code, _, said) = self.0.relay(&["run", "--once", "--shadow"]).await;
        assert_eq!(code, 0, "{said}");
    }

    async fn audit(&self) -> (i32, Value) {
        let (code, said, _) = self.0.relay(&["audit", "--shadow", "--json"]).await;
        (code, serde_json::from_str(&said).unwrap())
    }

    /// As the old service writes: no mark.
    async fn old_writes(&self, position: u32, amount: f64) {
        let set = doc! { "$set": { format!("final_creditor_list.{position}.current_debt_amount"): amount } };
        self.0.mongo.clients.update_one(doc! {}, set).await.unwrap();
    }

    async fn document(&self) -> Document {
        self.0.mongo.clients.find_one(doc! {}).await.unwrap().unwrap()
    }
}

fn seeblicks(amount: &str, received_at: &'static str) -> Update {
    Update {
        creditor_email: "post@seeblick.example",
        creditor_name: "Seeblick Wohnen eG",
        ..Update::of(amount, received_at)
    }
}

#[tokio::test]
async fn a_shadow_decides_like_a_relay_and_writes_nothing() {
    let shadow = Shadow::new().await;
    let world = &shadow.0;
    let before = shadow.document().await;
    let newer = world.commit(Update::of("900", "2026-03-01T00:00:00Z")).await;
    shadow.once().await;
    let older = world.commit(Update::of("950", "2026-02-01T00:00:00Z")).await;
    let lower = world.commit(Update::of("100", "2026-04-01T00:00:00Z")).await;
    shadow.once().await;
    assert_eq!(shadow.document().await, before, "not a byte");
    assert_eq!(world.state(newer).await, "done/applied/0");
    assert_eq!(world.state(older).await, "done/superseded/0", "its own decisions count");
    assert_eq!(world.state(lower).await, "done/held_for_review/0");
    let decision = world
        .row("select bool_and(reason like 'shadow, nothing is written: %'), count(*) from decisions")
        .await;
    assert_eq!((decision.get(0), decision.get(1)), (true, 3_i64));
    let status = world.relay(&["status"]).await.1;
    assert!(status.contains("a shadow's database") && status.contains("relay audit --shadow"), "{status}");
    let notices =
        world.row("select count(*) from outbox_messages where operation like '%notification'").await;
    assert_eq!(notices.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn the_audit_tells_what_the_old_service_did_otherwise() {
    let shadow = Shadow::new().await;
    let world = &shadow.0;
    world.commit(Update::of("900", "2026-03-01T00:00:00Z")).await;
    world.commit(seeblicks("310", "2026-03-01T00:00:00Z")).await;
    shadow.once().await;
    let (code, audit) = shadow.audit().await;
    assert_eq!(
        (code, &audit["by_agreement"]["not_written"]),
        (1, &2.into()),
        "the old service is not there yet: {audit}"
    );
    shadow.old_writes(0, 900.0).await;
    shadow.old_writes(1, 310.0).await;
    let (code, audit) = shadow.audit().await;
    assert_eq!(
        (code, &audit["compared"], &audit["agreement"]),
        (0, &2.into(), &serde_json::json!(1.0)),
        "{audit}"
    );
    let members: Vec<&str> = audit.as_object().unwrap().keys().map(String::as_str).collect();
    let mut documented = ["compared", "agreement", "is_healthy", "by_agreement", "findings"];
    documented.sort_unstable();
    assert_eq!(members, documented);

    // It writes a made-up amount where we hold the mail, and another one than the mail's.
    let held = world.commit(Update { amount: None, ..Update::of("0", "2026-05-01T00:00:00Z") }).await;
    shadow.once().await;
    shadow.old_writes(0, 100.0).await;
    shadow.old_writes(1, 31.0).await;
    let (code, audit) = shadow.audit().await;
    assert_eq!(code, 1, "{audit}");
    let kinds = audit["by_agreement"].to_string();
    assert_eq!(kinds, r#"{"differs":2,"held_but_written":1}"#);
    assert!(
        audit["findings"].as_array().unwrap().iter().any(|finding| finding["email_id"] == held),
        "{audit}"
    );
    let (_, said, _) = world.relay(&["audit", "--shadow"]).await;
    assert!(
        said.contains("held_but_written") && said.contains("here 310.00  MongoDB 31.00  before -"),
        "{said}"
    );
}

#[tokio::test]
async fn a_mail_that_the_old_service_had_written_before_it_was_held_here_is_told() {
    let shadow = Shadow::new().await;
    let world = &shadow.0;
    // A made-up amount, which is there when the shadow relay comes to the mail.
    shadow.old_writes(0, 100.0).await;
    let answered = mongodb::bson::DateTime::parse_rfc3339_str("2026-05-01T00:00:07Z").unwrap();
    let set = doc! { "$set": { "final_creditor_list.0.response_received_at": answered } };
    world.mongo.clients.update_one(doc! {}, set).await.unwrap();
    let held = world.commit(Update { amount: None, ..Update::of("0", "2026-05-01T00:00:00Z") }).await;
    let later = world.commit(Update { amount: None, ..Update::of("0", "2026-05-02T00:00:00Z") }).await;
    shadow.once().await;
    let (_, audit) = shadow.audit().await;
    assert_eq!(audit["by_agreement"].to_string(), r#"{"held":1,"held_but_written":1}"#, "{audit}");
    assert_eq!(audit["findings"][0]["email_id"], held);
    assert_ne!(audit["findings"][0]["email_id"], later, "nothing was written since it came");
}

#[tokio::test]
async fn a_mail_that_is_held_without_a_match_is_compared_with_no_entry() {
    let world = World::new().await;
    let mut entry = turmhaus("b");
    entry.insert("current_debt_amount", 500.0);
    world.client(vec![entry]).await;
    let shadow = Shadow(world);
    let id = shadow.0.commit(seeblicks("310", "2026-03-01T00:00:00Z")).await;
    shadow.once().await;
    assert_eq!(shadow.0.state(id).await, "done/held_for_review/0");
    let (code, audit) = shadow.audit().await;
    assert_eq!((code, &audit["compared"]), (0, &0.into()), "{audit}");
}

#[tokio::test]
async fn relays_that_write_and_relays_that_watch_never_share_a_database() {
    let shadow = Shadow::new().await;
    let world = &shadow.0;
    let id = world.commit(Update::of("900", "2026-03-01T00:00:00Z")).await;
    assert_eq!(world.relay(&["audit", "--shadow"]).await.0, 3, "nobody has watched here yet");
    shadow.once().await;
    world.commit(Update::of("990", "2026-04-01T00:00:00Z")).await;
    let (code, _, said) = world.relay(&["run", "--once"]).await;
    assert!(code == 1 && said.contains("Use a new database"), "{said}");
    let (code, _, said) = world.relay(&["reconcile", "--repair"]).await;
    assert!(code == 1 && said.contains("relay audit --shadow"), "{said}");
    assert_eq!(world.relay(&["audit"]).await.0, 3);
    let dry = world.relay(&["apply", "--shadow", "--file", "/dev/null"]).await;
    assert_eq!(dry.0, 64, "{}", dry.2);
    assert_eq!(world.state(id).await, "done/applied/0");

    // Said beforehand, before there is a shadow relay.
    let trial = Shadow::new().await;
    trial.0.json_of(&["migrate", "--shadow"]).await;
    let id = trial.0.commit(Update::of("900", "2026-03-01T00:00:00Z")).await;
    let (code, _, said) = trial.0.relay(&["run", "--once"]).await;
    assert!(code == 1 && said.contains("Use a new database"), "{said}");
    trial.once().await;
    assert_eq!(trial.0.state(id).await, "done/applied/0");

    let live = Shadow::new().await;
    live.0.once().await;
    let (code, _, said) = live.0.relay(&["migrate", "--shadow"]).await;
    assert!(code == 1 && said.contains("needs one of its own"), "{said}");
    let (code, _, said) = live.0.relay(&["run", "--once", "--shadow"]).await;
    assert!(code == 1 && said.contains("needs one of its own"), "{said}");
    let (code, _, said) = live.0.relay(&["run", "--shadow=perhaps"]).await;
    assert!(code == 64 && said.contains("RELAY_SHADOW must be true or false"), "{said}");
}

#[tokio::test]
async fn a_relay_that_is_refused_removes_nothing_and_reconciles_nothing() {
    let (shadow, live) = (Shadow::new().await, Shadow::new().await);
    shadow.once().await;
    let stopped = CancellationToken::new();
    stopped.cancel();
    assert!(!is_admitted(&shadow.0.context().await, &stopped).await, "it would wait, and nothing begins");
    assert!(is_admitted(&live.0.context().await, &stopped).await);
}

#[tokio::test]
async fn a_running_relay_claims_nothing_in_the_others_database_and_says_so() {
    let shadow = Shadow::new().await;
    let world = &shadow.0;
    shadow.once().await;
    let id = world.commit(Update::of("900", "2026-03-01T00:00:00Z")).await;
    let mut relay = world.program(&world.mongo.url, &["run"]).spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(relay.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("this relay claims nothing") {
            break;
        }
    }
    let waiting = "select claim_count from outbox_messages where aggregate_id = $1::bigint::text";
    assert_eq!(world.sql.query_one(waiting, &[&id]).await.unwrap().get::<_, i64>(0), 0);
    // What would write is refused, whatever the plan says.
    assert!(relay.try_wait().unwrap().is_none(), "it stays, live and not ready");
    relay.kill().await.unwrap();
}
