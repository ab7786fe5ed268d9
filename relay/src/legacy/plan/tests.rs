use super::*;
use serde_json::Map;

fn row(value: Value) -> Row {
    if let Value::Object(fields) = value { Row(fields) } else { Row(Map::new()) }
}

/// A mail with one update of 5 EUR, written or not.
fn mail(id: i64, day: u8, written: bool, payload: Value) -> OldMail {
    let mut update = json!({ "payload": payload, "processed_at": written.then_some("2026-06-30T00:00:00") });
    update["payload"]["new_debt_amount"] = json!(5);
    let at = format!("2026-06-{day:02}T08:00:00");
    let mail = json!({ "received_at": at, "created_at": at, "extracted_data": { "debt_amount": 5.0 } });
    OldMail { id, row: row(mail), updates: vec![row(update)] }
}

#[test]
fn an_unfinished_update_goes_on_only_if_nothing_later_may_be_about_its_client() {
    let adler = json!({ "client_aktenzeichen": "2024/118", "client_name": "Adler, Eva" });
    let kind = |unfinished: &Value, written: Value| {
        let mut history = History::default();
        history.add(&mail(1, 20, true, written));
        plan(&mail(2, 10, false, unfinished.clone()), 7, &history).unwrap().kind
    };
    assert_eq!(kind(&adler, json!({ "client_aktenzeichen": "2024_118" })), Kind::HeldUpdate);
    assert_eq!(
        kind(&adler, json!({ "client_aktenzeichen": "9999", "client_name": "Eva Adler" })),
        Kind::HeldUpdate
    );
    assert_eq!(
        kind(&adler, json!({ "client_name": "Brandt, Jo" })),
        Kind::HeldUpdate,
        "without a number it may be anybody"
    );
    assert_eq!(
        kind(&adler, json!({ "client_aktenzeichen": "2024_200", "client_name": "Brandt, Jo" })),
        Kind::Update
    );
    let nameless = json!({ "client_name": "Adler, Eva" });
    assert_eq!(
        kind(&nameless, json!({ "client_aktenzeichen": "2024_200", "client_name": "Brandt, Jo" })),
        Kind::HeldUpdate
    );
}

#[test]
fn what_the_same_sender_has_written_later_holds_an_update_unless_it_is_certainly_about_another_client() {
    let of = |number: Option<&str>, name: Option<&str>, sender: &str| json!({ "client_aktenzeichen": number, "client_name": name, "creditor_email": sender });
    let kind = |unfinished: &Value, written: Value| {
        let mut history = History::default();
        history.add(&mail(1, 20, true, written));
        plan(&mail(2, 10, false, unfinished.clone()), 7, &history).unwrap().kind
    };
    // The creditor's own file number stands in the place of the firm's, and the name is written in another way.
    let unfinished = of(Some("77120934"), Some("Herr Max Müller"), "inkasso@turmhaus.example");
    let written = |name, sender| of(Some("2024_118"), name, sender);
    assert_eq!(
        kind(&unfinished, written(Some("Müller, Max-Otto"), "konto@Turmhaus.example")),
        Kind::HeldUpdate
    );
    assert_eq!(kind(&unfinished, written(None, "konto@turmhaus.example")), Kind::HeldUpdate);
    assert_eq!(kind(&unfinished, written(Some("Brandt, Jo"), "konto@turmhaus.example")), Kind::Update);
    assert_eq!(kind(&unfinished, written(Some("Müller, Ada"), "konto@seeblick.example")), Kind::Update);
    assert_eq!(
        kind(&unfinished, written(Some("Frau Max Müller"), "konto@seeblick.example")),
        Kind::HeldUpdate,
        "a title is no part of a name"
    );
    // At a provider of mailboxes the domain says nothing.
    let unfinished = of(Some("77120934"), Some("Max Müller"), "wirt@gmx.de");
    assert_eq!(kind(&unfinished, written(Some("Müller, Ada"), "other@gmx.de")), Kind::Update);
    assert_eq!(kind(&unfinished, written(Some("Müller, Ada"), "Wirt@gmx.de")), Kind::HeldUpdate);
}

#[test]
fn what_may_have_been_written_is_not_written_again_unasked_and_holds_back_what_is_older() {
    let payload = json!({ "client_aktenzeichen": "2024/118", "client_name": "Adler, Eva" });
    let (older, mut unsure) = (mail(1, 10, false, payload.clone()), mail(2, 20, false, payload));
    let kinds = |unsure: &OldMail| {
        let mut history = History::default();
        history.add(unsure);
        [&older, unsure].map(|mail| plan(mail, 7, &history).unwrap().kind)
    };
    assert_eq!(kinds(&unsure), [Kind::Update, Kind::Update]);
    unsure.row.0.insert("sync_status".into(), json!("synced"));
    assert_eq!(kinds(&unsure), [Kind::HeldUpdate, Kind::HeldUpdate]);
    unsure.row.0.remove("sync_status");
    unsure.updates.insert(0, row(json!({ "processed_at": "2026-06-20T09:00:00" })));
    assert_eq!(kinds(&unsure), [Kind::HeldUpdate, Kind::HeldUpdate]);
    unsure.updates.clear();
    unsure.row.0.extend([
        ("processing_status".to_owned(), json!("completed")),
        ("match_status".to_owned(), json!("auto_matched")),
        ("sync_status".to_owned(), json!("pending")),
    ]);
    assert_eq!(kinds(&unsure), [Kind::HeldUpdate, Kind::HeldExtraction]);
}

#[test]
fn a_mail_without_a_match_is_read_again_for_a_person_since_an_outage_was_recorded_so() {
    let mut unmatched = mail(2, 20, false, json!({}));
    unmatched.updates.clear();
    unmatched.row.0.extend([
        ("processing_status".to_owned(), json!("completed")),
        ("match_status".to_owned(), json!("no_match")),
        ("sync_status".to_owned(), json!("not_applicable")),
    ]);
    assert_eq!(plan(&unmatched, 7, &History::default()).unwrap().kind, Kind::HeldExtraction);
    unmatched.row.0.insert("match_status".into(), json!("needs_review"));
    assert_eq!(plan(&unmatched, 7, &History::default()).unwrap().kind, Kind::Undecided);
}

#[test]
fn a_time_after_the_arrival_or_before_2015_is_that_of_arrival() {
    let time = |received: Value, created: Value| {
        received_at(&row(json!({ "received_at": received, "created_at": created }))).map(|at| at.to_string())
    };
    let created = "2026-06-10T08:00:00Z";
    for wrong in ["2026-12-10T08:00:00", "2026-06-10T08:00:01", "2014-12-31T23:59:59", "gestern"] {
        assert_eq!(time(json!(wrong), json!(created)).as_deref(), Some(created), "{wrong}");
    }
    assert_eq!(time(json!("2026-06-09T08:00:00"), json!(created)).as_deref(), Some("2026-06-09T08:00:00Z"));
    assert_eq!(time(json!(created), Value::Null), None, "nothing says that it is not of the future");
    let mut early = mail(3, 10, false, json!({}));
    early.row.0.insert("received_at".into(), json!("2026-12-10T08:00:00"));
    let planned = plan(&early, 7, &History::default()).unwrap();
    assert!(planned.mail["received_at_note"].is_string(), "{}", planned.mail);
}

#[test]
fn only_the_newest_written_mail_of_a_client_and_a_sender_marks_the_entry() {
    let from = |sender: &str| json!({ "client_aktenzeichen": "2024/118", "creditor_email": sender });
    let mails = [
        mail(1, 10, true, from("A@b.example")),
        mail(2, 20, true, from("a@b.example")),
        mail(3, 15, true, from("x@y.example")),
    ];
    let mut history = History::default();
    mails.iter().for_each(|mail| history.add(mail));
    let kinds = mails.iter().map(|mail| plan(mail, 7, &history).unwrap().kind);
    assert_eq!(kinds.collect::<Vec<_>>(), [Kind::Settled, Kind::Mark, Kind::Mark]);
}

#[test]
fn a_stamp_is_made_of_the_mails_time_and_its_id_here() {
    let planned = plan(&mail(2, 10, false, json!({})), 70_000, &History::default()).unwrap();
    let at = "2026-06-10T08:00:00Z".parse().unwrap();
    let stamp = Stamp::new(at, 70_000, Revision::FIRST).unwrap().to_string();
    let message = planned.message.unwrap();
    assert_eq!(
        (&message["payload"]["stamp"], &message["idempotency_key"]),
        (&stamp.into(), &"creditor_debt_update:70000:0".into())
    );
    assert!(plan(&OldMail::default(), 7, &History::default()).is_err(), "without a time nothing orders it");
}
