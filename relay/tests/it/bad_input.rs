//! Input that is not as it should be: each ends as its own, with a reason that a person can use and that tells nothing personal; the
//! healthy messages of the same batch are applied, and of a document nothing changes but what an update sets.

mod shapes;

use crate::world::{Update, World, turmhaus};
use mongodb::bson::{Document, RawBsonRef, RawDocumentBuf, cstr, doc};
use serde_json::{Value, json};
use shared::message::EmailId;
use std::collections::{BTreeMap, BTreeSet};

/// A client document and what the default [`Update`] comes to in it.
pub(crate) struct Case {
    /// Also its case number, unless the document has one.
    pub(crate) name: &'static str,
    pub(crate) document: Document,
    pub(crate) state: &'static str,
    /// A part of the reason.
    pub(crate) reason: &'static str,
    /// The element of the list that is written.
    pub(crate) written: Option<usize>,
}

/// Runs all cases in one batch, each beside a healthy message, and checks state, reason and every byte of the documents.
pub(crate) async fn check(cases: Vec<Case>) {
    let world = World::new().await;
    let mut sent = Vec::new();
    for (number, case) in cases.into_iter().enumerate() {
        let mut document = doc! { "aktenzeichen": case.name, "firstName": "Eva", "lastName": "Adler", "odd.name": { "$x": 1 } };
        document.extend(case.document.clone());
        document.insert("case", case.name);
        world.mongo.clients.insert_one(document).await.unwrap();
        let email = world.commit(Update { aktenzeichen: case.name, ..Update::default() }).await;
        sent.push((email, bytes(&world, case.name).await, case));
        healthy(&world, number).await;
    }
    let summary = world.once().await;
    assert_eq!(summary.claimed, 2 * sent.len() as u64, "all in one batch, each once");
    all_healthy_are_applied(&world, sent.len()).await;
    let mut wrong = Vec::new();
    for (email, before, case) in sent {
        let found = (world.state(email).await, reason(&world, email).await);
        if found.0 != case.state || !found.1.contains(case.reason) {
            wrong.push(format!("{}: {found:?}", case.name));
        }
        let after = bytes(&world, case.name).await;
        let place = case.written.map(|at| format!("final_creditor_list.{at}."));
        let ours = |name: &str| {
            let field = place.as_deref().and_then(|place| name.strip_prefix(place));
            field.is_some_and(|field| SET.contains(&field))
        };
        let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for path in paths.into_iter().filter(|path| !ours(path) && before.get(*path) != after.get(*path)) {
            wrong.push(format!("{}: {path} has changed", case.name));
        }
        let set = after.keys().filter(|path| ours(path)).count();
        if set != case.written.map_or(0, |_| SET.len()) {
            wrong.push(format!("{}: {set} fields of ours", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the default [`Update`] sets.
const SET: [&str; 10] = [
    "current_debt_amount",
    "creditor_response_amount",
    "amount_source",
    "response_received_at",
    "last_contacted_at",
    "contact_status",
    "extraction_confidence",
    "creditor_response_text",
    "response_reference_numbers",
    "_relay",
];

/// The bytes of every field of the document, of the list's elements, and of the fields of those, by path.
async fn bytes(world: &World, case: &str) -> BTreeMap<String, Vec<u8>> {
    let clients = world.mongo.clients.clone_with_type::<RawDocumentBuf>();
    let document = clients.find_one(doc! { "case": case }).await.unwrap().unwrap();
    let mut parts = BTreeMap::new();
    take_apart(&mut parts, "", RawBsonRef::Document(&document), 3);
    parts
}

fn take_apart(parts: &mut BTreeMap<String, Vec<u8>>, path: &str, value: RawBsonRef<'_>, depth: u8) {
    let mut inside = |name: &str, value| take_apart(parts, &format!("{path}{name}."), value, depth - 1);
    if let Some(document) = value.as_document().filter(|_| depth > 0) {
        document.iter().map(Result::unwrap).for_each(|(name, value)| inside(name.as_str(), value));
    } else if let Some(list) = value.as_array().filter(|_| depth > 0) {
        let elements = list.into_iter().map(Result::unwrap).enumerate();
        elements.for_each(|(at, value)| inside(&at.to_string(), value));
    } else {
        let mut alone = RawDocumentBuf::new();
        alone.append(cstr!("v"), value);
        parts.insert(path.trim_end_matches('.').to_owned(), alone.into_bytes());
    }
}

/// A client and its update that nothing is wrong with.
pub(crate) async fn healthy(world: &World, number: usize) -> EmailId {
    let aktenzeichen: &'static str = format!("healthy {number}").leak();
    let document = doc! { "aktenzeichen": aktenzeichen, "final_creditor_list": [turmhaus("b")] };
    world.mongo.clients.insert_one(document).await.unwrap();
    world.commit(Update { aktenzeichen, ..Update::default() }).await
}

pub(crate) async fn all_healthy_are_applied(world: &World, count: usize) {
    let written = doc! { "aktenzeichen": { "$regex": "^healthy " }, "final_creditor_list.current_debt_amount": 1234.56 };
    assert_eq!(world.mongo.clients.count_documents(written).await.unwrap(), count as u64);
    let applied =
        "select count(*) from outbox_messages where payload ->> 'client_aktenzeichen' like 'healthy %'
        and outcome = 'applied' and retry_count = 0";
    assert_eq!(world.row(applied).await.get::<_, i64>(0), count as i64);
}

/// Why the mail's only message ended, or waits, as it does; checked to be fit for an operator and for a log.
pub(crate) async fn reason(world: &World, email: EmailId) -> String {
    let statement =
        "select coalesce(o.error_message, d.reason), concat_ws(' ', m.sync_error, m.processing_error)
        from outbox_messages o join incoming_emails m on m.id = o.aggregate_id::bigint
        left join decisions d on d.message_id = o.id where m.id = $1";
    let row = world.sql.query_one(statement, &[&email]).await.unwrap();
    let (reason, shown): (String, String) = (row.get(0), row.get(1));
    assert!(reason == "written" || reason.contains(' '), "words: {reason}");
    for personal in ["turmhaus", "adler", "eva", "1234", "stand heute", "tk-1", "healthy"] {
        let text = format!("{reason} {shown}").to_lowercase();
        assert!(!text.contains(personal), "{personal} is nobody's business: {text}");
    }
    reason
}

/// The default update's payload with these changes; null takes a member away.
fn payload(email: EmailId, changes: &Value) -> Value {
    let mut payload = json!({
        "email_id": email, "client_aktenzeichen": "2024/118", "creditor_email": "konto@turmhaus.example", "new_debt_amount": "1234.56",
        "received_at": "2026-02-17T09:14:22Z", "stamp": "01857362985844736016", "origin": "mail",
    });
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            payload.as_object_mut().unwrap().remove(name);
        } else {
            payload[name] = value.clone();
        }
    }
    payload
}

async fn send(world: &World, operation: &str, changes: &Value) -> EmailId {
    let email = world.email("konto@turmhaus.example", "2026-02-17T09:14:22Z".parse().unwrap()).await;
    world.message(operation, email, payload(email, changes)).await;
    email
}

#[tokio::test]
async fn a_payload_that_cannot_be_read_is_dead_at_once_and_tells_nothing_of_it() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let unreadable = [
        json!({ "stamp": "17" }),
        json!({ "stamp": 17 }),
        json!({ "stamp": null }),
        json!({ "new_debt_amount": 1234.56 }),
        json!({ "new_debt_amount": "-1234.56" }),
        json!({ "new_debt_amount": "1.234,56" }),
        json!({ "origin": "adler" }),
        json!({ "received_at": "am Dienstag" }),
        json!({ "extraction_confidence": "turmhaus" }),
        json!({ "reference_numbers": "TK-1" }),
        json!({ "email_id": 1.5 }),
        json!({ "creditor_email": ["konto@turmhaus.example"] }),
    ];
    let mut emails = Vec::new();
    for (number, changes) in unreadable.iter().enumerate() {
        emails.push((send(&world, "creditor_debt_update", changes).await, changes));
        healthy(&world, number).await;
    }
    let summary = world.once().await;
    assert_eq!((summary.claimed, summary.dead), (2 * unreadable.len() as u64, unreadable.len() as u64));
    all_healthy_are_applied(&world, unreadable.len()).await;
    for (email, changes) in emails {
        assert_eq!(world.state(email).await, "dead/permanent/1", "{changes}");
        assert_eq!(world.shows(email).await, "failed/-/failed", "{changes}");
        assert!(reason(&world, email).await.starts_with("the payload cannot be read"), "{changes}");
    }
    assert_eq!(world.entries().await, [turmhaus("b")]);
}

#[tokio::test]
async fn a_payload_of_an_older_and_of_a_newer_version_is_carried_out() {
    for changes in [
        json!({}),
        json!({ "origin": "replay" }),
        json!({ "a_field_of_tomorrow": { "deep": [1] }, "priority": 5, "decided_by": "Frau Kundig", "client_name": "Adler, Eva" }),
    ] {
        let world = World::new().await;
        world.client(vec![turmhaus("b")]).await;
        let email = send(&world, "creditor_debt_update", &changes).await;
        world.once().await;
        assert_eq!(world.state(email).await, "done/applied/0", "{changes}");
        let entry = world.entries().await.remove(0);
        assert_eq!(entry.get_f64("current_debt_amount").unwrap(), 1234.56);
        for absent in ["extraction_confidence", "creditor_response_text", "response_reference_numbers"] {
            assert!(!entry.contains_key(absent), "{absent} is not made up");
        }
    }
}

#[tokio::test]
async fn an_operation_that_this_binary_does_not_know_is_not_even_claimed() {
    let world = World::new().await;
    let email = send(&world, "creditor_debt_update_v2", &json!({})).await;
    let before = row_of(&world).await;
    healthy(&world, 0).await;
    assert_eq!(world.once().await.claimed, 1);
    assert_eq!(world.shows(email).await, "extracted/-/pending");
    assert_eq!(row_of(&world).await, before);
}

async fn row_of(world: &World) -> String {
    world
        .row("select o::text from outbox_messages o where operation like '%v2' and claim_count = 0")
        .await
        .get(0)
}
