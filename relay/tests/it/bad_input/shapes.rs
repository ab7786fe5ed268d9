//! Client documents of unexpected shape.

use super::{Case, check};
use crate::world::{seeblick, turmhaus};
use mongodb::bson::{Binary, Bson, DateTime, Decimal128, Document, Regex, cstr, doc, spec::BinarySubtype};

const APPLIED: &str = "done/applied/0";
const HELD: &str = "done/held_for_review/0";

fn applied(name: &'static str, at: usize, list: Vec<Bson>) -> Case {
    let document = doc! { "final_creditor_list": list };
    Case { name, document, state: APPLIED, reason: "written", written: Some(at) }
}

fn held(name: &'static str, reason: &'static str, list: impl Into<Bson>) -> Case {
    Case { name, document: doc! { "final_creditor_list": list.into() }, state: HELD, reason, written: None }
}

/// Our creditor's entry with these fields.
fn with(fields: Document) -> Bson {
    let mut entry = turmhaus("b");
    entry.extend(fields);
    Bson::Document(entry)
}

/// Our creditor's entry without an id.
fn nameless(fields: Document) -> Bson {
    let mut entry = turmhaus("b");
    entry.remove("id");
    entry.extend(fields);
    Bson::Document(entry)
}

fn other(id: &str) -> Bson {
    Bson::Document(seeblick(id))
}

#[tokio::test]
async fn lists_that_are_none_or_hold_other_things_are_never_written_at_a_wrong_place() {
    const NO_LIST: &str = "the client has no list of creditors";
    const UNCLEAR: &str = "cannot be told from another";
    let many = |id: fn(usize) -> Bson| (0..5000).map(id).collect::<Vec<_>>();
    let mut with_ids = many(|at| other(&format!("o{at}")));
    with_ids[4321] = with(doc! {});
    let mut without_ids =
        many(|at| Bson::Document(doc! { "sender_email": format!("o{at}@seeblick.example") }));
    without_ids[4999] = nameless(doc! {});
    check(vec![
        Case { document: doc! {}, ..held("no list", NO_LIST, Bson::Null) },
        held("list is an entry", NO_LIST, turmhaus("b")),
        held("list by positions", NO_LIST, doc! { "0": turmhaus("b") }),
        held("list in a list", NO_LIST, vec![Bson::Array(vec![with(doc! {})])]),
        applied("strings around an id", 2, vec!["x".into(), Bson::Null, with(doc! {}), 5.into(), other("a")]),
        held("strings around no id", UNCLEAR, vec!["x".into(), nameless(doc! {}), "y".into()]),
        applied("list in front of no id", 1, vec![Bson::Array(vec![]), nameless(doc! {}), other("a")]),
        applied("nothing but the entry", 0, vec![nameless(doc! {})]),
        applied("many with ids", 4321, with_ids),
        applied("many without ids", 4999, without_ids),
    ])
    .await;
}

#[tokio::test]
async fn ids_of_other_types_are_held_or_the_identity_decides() {
    const UNCLEAR: &str = "cannot be told from another";
    check(vec![
        held("id is a number", UNCLEAR, vec![other("a"), with(doc! { "id": 5 })]),
        held("id is an array", UNCLEAR, vec![with(doc! { "id": ["b"] })]),
        held("id is a document", UNCLEAR, vec![with(doc! { "id": { "b": 1 } })]),
        applied("id is null", 1, vec![other("a"), with(doc! { "id": null })]),
        applied("id is empty", 1, vec![other("a"), with(doc! { "id": "" })]),
        applied("id looks like an operator", 0, vec![with(doc! { "id": "$[e].x" }), other("a")]),
        applied("another's id is a number", 1, vec![other("a"), with(doc! {}), doc! { "id": 5 }.into()]),
        applied(
            "id beside odd fields",
            0,
            vec![with(doc! { "sender_name": ["x", ["y"]], "reference_number": { "a": [1] } })],
        ),
        held("id undefined", UNCLEAR, vec![nameless(doc! { "id": Bson::Undefined })]),
        held(
            "no id and a name undefined",
            UNCLEAR,
            vec![nameless(doc! { "glaeubiger_name": Bson::Undefined })],
        ),
        held("no id and an array as name", UNCLEAR, vec![nameless(doc! { "glaeubiger_name": ["x"] })]),
    ])
    .await;
}

#[tokio::test]
async fn stored_amounts_that_are_no_amounts_are_held_and_all_number_types_are_read() {
    const ODD: &str = "not a plain amount of money";
    let stored = |value: Bson| vec![other("a"), with(doc! { "current_debt_amount": value })];
    let decimal = |text: &str| stored(Bson::Decimal128(text.parse::<Decimal128>().unwrap()));
    check(vec![
        applied("int32", 1, stored(Bson::Int32(1000))),
        applied("int64", 1, stored(Bson::Int64(1000))),
        applied("decimal", 1, decimal("1000.10")),
        applied("three decimals", 1, stored(Bson::Double(1000.004))),
        applied("sum of floats", 1, stored(Bson::Double(0.1 + 0.2))),
        held("higher decimal", "lower than the stored", decimal("1234.57")),
        held("higher int64", "lower than the stored", stored(Bson::Int64(1235))),
        held("text", ODD, stored("1000.10".into())),
        held("nan", ODD, stored(Bson::Double(f64::NAN))),
        held("infinity", ODD, stored(Bson::Double(f64::INFINITY))),
        held("negative", ODD, stored(Bson::Double(-5.0))),
        held("decimal nan", ODD, decimal("NaN")),
        held("decimal infinity", ODD, decimal("-Infinity")),
        held("int64 beyond money", ODD, stored(Bson::Int64(i64::MAX))),
        held("double beyond money", ODD, stored(Bson::Double(1e300))),
        held("array", ODD, stored(Bson::Array(vec![1000.into()]))),
        held("document", ODD, stored(doc! { "value": 1000 }.into())),
        held("undefined", ODD, stored(Bson::Undefined)),
        held("true", ODD, stored(true.into())),
        held("date", ODD, stored(DateTime::from_millis(5).into())),
    ])
    .await;
}

#[tokio::test]
async fn marks_and_dates_of_other_types_count_as_none() {
    let dated = |value: Bson| vec![with(doc! { "response_received_at": value })];
    let marked = |value: Bson| vec![other("a"), with(doc! { "_relay": value })];
    let high = "99999999999999999999";
    check(vec![
        applied("mark is a string", 1, marked(high.into())),
        applied("mark is empty", 1, marked(doc! {}.into())),
        applied(
            "mark with a number",
            1,
            marked(doc! { "stamp": i64::MAX, "email": "x", "previous": "y" }.into()),
        ),
        applied("mark with a date", 1, marked(doc! { "stamp": DateTime::MAX }.into())),
        applied("mark with a document", 1, marked(doc! { "stamp": { "stamp": high } }.into())),
        applied("mark is a list of others", 1, marked(vec![doc! { "a": high }].into())),
        applied("date min", 0, dated(Bson::MinKey)),
        applied("date symbol", 0, dated(Bson::Symbol("x".into()))),
        applied("date code", 0, dated(Bson::JavaScriptCode("x".into()))),
        applied("date decimal nan", 0, dated(Bson::Decimal128("NaN".parse().unwrap()))),
        applied("date is text", 0, dated("2026-01-01".into())),
        applied("date is a list", 0, dated(vec![Bson::Int32(1), Bson::Array(vec![])].into())),
        applied("date is a document", 0, dated(doc! { "$gt": 1 }.into())),
        applied(
            "date is a pattern",
            0,
            dated(Regex { pattern: cstr!("^x").into(), options: cstr!("i").into() }.into()),
        ),
        applied("date is not a number", 0, dated(f64::NAN.into())),
        applied(
            "date without id is a document",
            0,
            vec![nameless(doc! { "response_received_at": { "$in": [1] } })],
        ),
        applied(
            "summary is a document",
            0,
            vec![with(doc! { "creditor_response_text": { "a": 1 }, "contact_status": [1] })],
        ),
    ])
    .await;
}

#[tokio::test]
async fn numbers_and_ids_of_clients_may_be_of_any_type() {
    let list = || vec![other("a"), with(doc! {})];
    let of = |name, id: Bson| Case {
        document: doc! { "_id": id, "final_creditor_list": list() },
        ..applied(name, 1, vec![])
    };
    let uuid = Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] };
    let number = doc! { "aktenzeichen": 4711, "final_creditor_list": list() };
    check(vec![
        of("id is text", "client".into()),
        of("id is a number", 5.into()),
        of("id is a double", 5.5.into()),
        of("id is a document", doc! { "a": 1, "b": [2] }.into()),
        of("id is a uuid", uuid.into()),
        of("id is a date", DateTime::from_millis(5).into()),
        of("id is true", true.into()),
        Case {
            document: number,
            state: "waiting/target_missing/0",
            reason: "no client of this number",
            written: None,
            ..of("4711", Bson::Null)
        },
    ])
    .await;
}

#[tokio::test]
async fn documents_of_15_mb_take_nobody_with_them() {
    let filler = || "x".repeat(5 << 20);
    let aside = |name| Case {
        document: doc! { "notes": [filler(), filler(), filler()], "final_creditor_list": [with(doc! {})] },
        ..applied(name, 0, vec![])
    };
    let beside = |name, at: usize| {
        let mut list: Vec<Bson> = (0..3)
            .map(|number| doc! { "id": format!("o{number}"), "sender_name": filler() }.into())
            .collect();
        list.insert(at, with(doc! {}));
        applied(name, at, list)
    };
    check(vec![
        aside("notes one"),
        beside("names one", 1),
        aside("notes two"),
        beside("names two", 3),
        beside("names three", 0),
    ])
    .await;
}
