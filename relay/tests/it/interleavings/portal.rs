//! The portal: rewrites the list in whole, as it does when it merges duplicates, and knows nothing of our marks.

use super::{
    event::Portal,
    stage::{ENTRIES, address},
};
use crate::world::World;
use mongodb::bson::{Bson, Document, doc};
use shared::message::Stamp;
use std::time::Duration;

/// Reads, changes and writes the list; nobody else writes meanwhile. `number` tells one rewrite from another.
pub(super) async fn rewrite(
    world: &World,
    change: &Portal,
    number: usize,
    ledger: &[Option<Stamp>; ENTRIES],
) {
    let mut list = world.entries().await;
    match change {
        Portal::DropMark { entry } => of(&mut list, *entry, |element| drop_mark(element, ledger[*entry])),
        Portal::Reorder { by } => {
            let by = by % list.len();
            list.rotate_left(by);
            list[by..].reverse();
        }
        Portal::RewriteWithoutMarks => {
            for (entry, stamp) in ledger.iter().enumerate() {
                of(&mut list, entry, |element| {
                    drop_mark(element, *stamp);
                    write_as_node(element);
                });
            }
        }
        Portal::AddCreditor => {
            let mail = format!("konto@other{number}.example");
            let other =
                doc! { "id": format!("other{number}"), "sender_email": mail, "current_debt_amount": 77 };
            list.insert(number % list.len(), other);
        }
        Portal::EditOtherFields { entry } => of(&mut list, *entry, |element| {
            element.insert("portal_note", format!("edited {number}"));
            element.insert("last_contacted_at", mongodb::bson::DateTime::from_millis(1));
            element.insert("contact_status", "email_sent");
        }),
    }
    let change = doc! { "$set": { "final_creditor_list": list } };
    world.mongo.clients.update_one(doc! {}, change).await.unwrap();
}

/// Reorders the list in one step on the server, so that nothing of the relays is lost, until it is dropped.
pub(super) async fn keep_reordering(world: &World) {
    let list = "$final_creditor_list";
    let rotated = doc! { "$concatArrays": [{ "$slice": [list, 1, 9] }, { "$slice": [list, 1] }] };
    for order in [doc! { "$reverseArray": list }, rotated].iter().cycle() {
        let change = vec![doc! { "$set": { "final_creditor_list": order } }];
        world.mongo.clients.update_one(doc! {}, change).await.unwrap();
        // A list that never rests would let no entry without an id be written: its place is part of the filter.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn of(list: &mut [Document], entry: usize, change: impl FnOnce(&mut Document)) {
    let address = address(entry);
    change(
        list.iter_mut()
            .find(|element| element.get_str("sender_email").is_ok_and(|mail| mail == address))
            .unwrap(),
    );
}

/// Leaves the mark where MongoDB is ahead of the ledger. That is the one gap that is left (README, invariant 5): a newer amount is
/// written but not finished, the portal drops its mark, and an older one is applied, all in the same moment.
fn drop_mark(element: &mut Document, ledger: Option<Stamp>) {
    let known = ledger.map(|stamp| stamp.to_string()).unwrap_or_default();
    let ahead = |mark: &Document| mark.get_str("stamp").is_ok_and(|stamp| stamp > known.as_str());
    if !element.get_document("_relay").is_ok_and(ahead) {
        element.remove("_relay");
    }
}

/// Node.js writes a whole number as int32, whatever it was before.
fn write_as_node(element: &mut Document) {
    for name in ["current_debt_amount", "creditor_response_amount"] {
        #[expect(clippy::cast_possible_truncation, reason = "whole, and at most 500,000")]
        if let Ok(amount) = element.get_f64(name)
            && amount.fract() == 0.0
        {
            element.insert(name, Bson::Int32(amount as i32));
        }
    }
}
