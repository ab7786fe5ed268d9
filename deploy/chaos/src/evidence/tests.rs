//! On a real MongoDB: what the relay writes is evidence, and what anybody else writes is strange.

use super::*;
use testkit::MongoDatabase;

/// Client 0 with five entries, which two updates have reached; and then this.
async fn after(plant: Document) -> (Vec<Held>, Vec<String>, Vec<(Held, Told)>) {
    let mongo = MongoDatabase::new().await;
    let clients = &mongo.clients;
    clients.insert_one(stock::document(0)).await.unwrap();
    let hello = clients.client().database("admin").run_command(doc! { "hello": 1 }).await.unwrap();
    let since = hello.get_document("$clusterTime").unwrap().get_timestamp("clusterTime").unwrap();
    let first = written(3, &doc! { "stamp": stamp(1), "email": 1_i64, "previous": Bson::Null }, 120.5, 1_000);
    let second = written(3, &doc! { "stamp": stamp(2), "email": 2_i64, "previous": 120.5 }, 131.0, 2_000);
    for change in [first, second, plant] {
        clients.update_one(doc! {}, doc! { "$set": change }).await.unwrap();
    }
    let (entries, ids) = documents(clients).await.unwrap();
    let (history, strange) = history(clients, since, &ids).await.unwrap();
    (history, strange, entries)
}

/// As the relay writes an entry.
fn written(creditor: usize, mark: &Document, amount: f64, ms: i64) -> Document {
    let received = mongodb::bson::DateTime::from_millis(ms);
    let fields = doc! {
        "_relay": mark, "current_debt_amount": amount, "creditor_response_amount": amount, "amount_source": "creditor_response",
        "contact_status": "responded", "response_received_at": received, "last_contacted_at": received,
        "creditor_response_text": "so viel",
    };
    fields
        .into_iter()
        .map(|(name, value)| (format!("final_creditor_list.{creditor}.{name}"), value))
        .collect()
}

fn stamp(number: i64) -> String {
    format!("{number:020}")
}

fn held(entry: usize, number: i64, cents: i64) -> Held {
    Held { entry, stamp: number, email_id: number, cents }
}

#[tokio::test]
async fn what_the_relay_writes_is_told_in_its_order() {
    let third = doc! { "stamp": stamp(3), "email": 3_i64, "previous": Bson::Null };
    let (history, strange, entries) = after(written(4, &third, 99.99, 3_000)).await;
    assert_eq!(history, [held(3, 1, 12_050), held(3, 2, 13_100), held(4, 3, 9_999)]);
    assert_eq!(strange, Vec::<String>::new());
    let told = |fields: &str| Told { fields: fields.into(), text: "so viel".into() };
    let newest = [
        (held(3, 2, 13_100), told("13100 creditor_response responded 2000 2000")),
        (held(4, 3, 9_999), told("9999 creditor_response responded 3000 3000")),
    ];
    assert_eq!(entries, newest);
}

#[tokio::test]
async fn an_equal_amount_changes_the_mark_alone() {
    let again = doc! { "stamp": stamp(3), "email": 3_i64, "previous": 131.0 };
    let (history, strange, _) = after(written(3, &again, 131.0, 3_000)).await;
    assert_eq!(history, [held(3, 1, 12_050), held(3, 2, 13_100), held(3, 3, 13_100)]);
    assert_eq!(strange, Vec::<String>::new());
}

#[tokio::test]
async fn a_change_without_a_mark_or_of_another_field_is_strange() {
    let unmarked = doc! { "final_creditor_list.3.current_debt_amount": 140.0 };
    assert_eq!(after(unmarked).await.1.len(), 1);
    assert_eq!(after(doc! { "current_status": "closed" }).await.1.len(), 1);
    let mut more = written(3, &doc! { "stamp": stamp(3), "email": 3_i64, "previous": 131.0 }, 140.0, 3_000);
    more.insert("final_creditor_list.3.sender_name", "Other GmbH");
    assert_eq!(after(more).await.1.len(), 1);
}

#[tokio::test]
async fn a_mark_that_tells_another_amount_than_it_replaced_is_strange() {
    let lost_one = doc! { "stamp": stamp(3), "email": 3_i64, "previous": 120.5 };
    assert_eq!(after(written(3, &lost_one, 140.0, 3_000)).await.1.len(), 1);
}
