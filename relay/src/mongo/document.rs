//! Client documents as BSON: reading them into plain data, and the statement that updates an entry as it was read.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of BSON's twenty types a few are meant, and all others are treated alike"
)]

use crate::client::{Client, Entry, Fence, Identity, StoredAmount};
use mongodb::bson::{Bson, DateTime, Document, doc};
use sha2::{Digest, Sha256};
use shared::{
    message::{CreditorDebtUpdate, EmailId},
    money::Amount,
};
use std::{collections::HashMap, fmt::Write};

/// What the list is called in a client document.
pub(super) const LIST: &str = "final_creditor_list";

/// A client with what an update of its entries has to repeat of the document as it was read.
#[derive(Debug)]
pub struct Found {
    /// The plain data.
    pub client: Client,
    id: Bson,
    /// By position: the entry's fields of [`AS_READ`], as they were read.
    as_read: HashMap<usize, HashMap<&'static str, Bson>>,
}

/// One statement of a batch: this update into that entry as it was read.
#[derive(Debug, Clone, Copy)]
pub struct EntryUpdate<'a> {
    /// The document.
    pub found: &'a Found,
    /// The entry in it.
    pub entry: &'a Entry,
    /// The message's payload.
    pub update: &'a CreditorDebtUpdate,
    /// The amount that the guard let pass.
    pub amount: Amount,
}

/// Fields that every update of ours or of a rival changes: an entry is written only while they are as they were read. The date
/// tells a newer update that confirms the amount, even after the portal has dropped the mark of that update.
pub(super) const AS_READ: [&str; 3] = ["id", "current_debt_amount", "response_received_at"];

/// The update of one entry, which takes effect only if the entry is as it was read: same identity, same amount and date, and a
/// stamp that is a string lower than ours (or none, if none was read).
pub(super) fn statement(EntryUpdate { found, entry, update, amount }: &EntryUpdate<'_>) -> Document {
    let stamp = update.stamp.to_string();
    let fence = match &entry.fence {
        Some(_) => doc! { "$type": "string", "$lt": &stamp },
        None => doc! { "$not": { "$type": "string" } },
    };
    let stored = found.as_read.get(&entry.position);
    let as_read = AS_READ.map(|name| match stored.and_then(|fields| fields.get(name)) {
        Some(value) => (name, Bson::from(doc! { "$eq": value })),
        None => (name, Bson::from(doc! { "$exists": false })),
    });
    let mut fields = new_fields(update, *amount);
    let previous = entry.stored.known().map_or(Bson::Null, |amount| Bson::Double(amount.to_f64()));
    fields.insert("_relay", doc! { "stamp": &stamp, "email": update.email_id, "previous": previous });
    if let Some(id) = &entry.id {
        let set = prefixed(&format!("{LIST}.$[e]"), fields);
        let mut filter: Document =
            as_read.map(|(name, condition)| (format!("e.{name}"), condition)).into_iter().collect();
        // Equality would also match inside an array.
        filter.insert("e.id", doc! { "$eq": id, "$not": { "$type": "array" } });
        filter.insert("e._relay.stamp", fence);
        return doc! { "q": { "_id": &found.id }, "u": { "$set": set }, "arrayFilters": [filter] };
    }
    let place = format!("{LIST}.{}", entry.position);
    let mut query = doc! { "_id": &found.id };
    for (name, value) in entry.identity.fields() {
        query.insert(format!("{place}.{name}"), doc! { "$eq": value });
    }
    query.insert(format!("{place}._relay.stamp"), fence);
    query.extend(as_read.map(|(name, condition)| (format!("{place}.{name}"), condition)));
    doc! { "q": query, "u": { "$set": prefixed(&place, fields) } }
}

/// What a debt update sets in its entry. `claim_amount` is the original debt and is never written.
fn new_fields(update: &CreditorDebtUpdate, amount: Amount) -> Document {
    let received = DateTime::from_millis(update.received_at.as_millisecond());
    let mut fields = doc! {
        "current_debt_amount": amount.to_f64(),
        "creditor_response_amount": amount.to_f64(),
        "amount_source": "creditor_response",
        "response_received_at": received,
        "last_contacted_at": received,
        "contact_status": "responded",
    };
    if let Some(confidence) = update.extraction_confidence {
        fields.insert("extraction_confidence", confidence);
    }
    if let Some(text) = &update.response_text {
        fields.insert("creditor_response_text", text);
    }
    if !update.reference_numbers.is_empty() {
        fields.insert("response_reference_numbers", &update.reference_numbers);
    }
    fields
}

fn prefixed(prefix: &str, fields: Document) -> Document {
    fields.into_iter().map(|(name, value)| (format!("{prefix}.{name}"), value)).collect()
}

/// Reads a document as far as it has the expected shape; what has not is never written.
pub(super) fn read_client(document: Document) -> Option<Found> {
    let id = document.get("_id")?.clone();
    let text = |name: &str| document.get_str(name).ok().map(str::to_owned);
    let list = document.get_array(LIST).map(Vec::as_slice).unwrap_or_default();
    let positions_hold =
        number(document.get("list_length")).is_some_and(|length| usize::try_from(length) == Ok(list.len()));
    let elements = || list.iter().enumerate().filter_map(|(at, element)| Some((at, element.as_document()?)));
    let mut entries: Vec<Entry> =
        elements().map(|(position, element)| read_entry(position, element)).collect();
    // Two entries of one key cannot be told apart by a filter, whatever else they hold: neither may be written.
    let mut count: HashMap<&str, usize> = HashMap::new();
    let keys: Vec<String> = entries.iter().map(|entry| entry.entry_key.clone()).collect();
    let in_arrays = elements().filter_map(|(_, element)| element.get_array("id").ok());
    for key in keys.iter().map(String::as_str).chain(in_arrays.flatten().filter_map(Bson::as_str)) {
        *count.entry(key).or_default() += 1;
    }
    for entry in &mut entries {
        entry.addressable &=
            count.get(entry.entry_key.as_str()) == Some(&1) && (positions_hold || entry.id.is_some());
    }
    let fields = |element: &Document| {
        AS_READ.into_iter().filter_map(|name| Some((name, element.get(name)?.clone()))).collect()
    };
    let as_read = elements().map(|(position, element)| (position, fields(element))).collect();
    let client = Client {
        client_id: id_text(&id),
        aktenzeichen: text("aktenzeichen"),
        first_name: text("firstName").unwrap_or_default(),
        last_name: text("lastName").unwrap_or_default(),
        entries,
    };
    Some(Found { client, id, as_read })
}

/// Without a string `id` an entry is addressed by its identity, so that has to hold something, and nothing but strings: equality
/// would also match inside an array.
fn read_entry(position: usize, element: &Document) -> Entry {
    let text = |name: &str| element.get_str(name).ok().map(str::to_owned);
    let identity = Identity {
        sender_name: text("sender_name"),
        sender_email: text("sender_email"),
        glaeubiger_name: text("glaeubiger_name"),
        glaeubigervertreter_name: text("glaeubigervertreter_name"),
        actual_creditor: text("actual_creditor"),
        reference_number: text("reference_number"),
    };
    let id = text("id").filter(|id| !id.is_empty());
    let plain = |name: &str| matches!(element.get(name), None | Some(Bson::Null | Bson::String(_)));
    let addressable = id.is_some()
        || (!identity.is_empty() && identity.fields().iter().all(|(name, _)| plain(name)) && plain("id"));
    let stored = match element.get("current_debt_amount") {
        None | Some(Bson::Null) => StoredAmount::None,
        Some(value) => read_amount(value).map_or(StoredAmount::Unreadable, StoredAmount::Known),
    };
    let fence = element.get_document("_relay").ok().and_then(|mark| {
        let stamp = mark.get_str("stamp").ok()?.to_owned();
        let email_id = number(mark.get("email")).unwrap_or(0);
        Some(Fence { stamp, email_id, previous: mark.get("previous").and_then(read_amount) })
    });
    let entry_key = id.clone().unwrap_or_else(|| identity_key(&identity));
    Entry { position, id, entry_key, addressable, identity, stored, fence }
}

/// `h:` and 16 hex digits of SHA-256 over the identity fields, each as JSON string or null, one per line.
fn identity_key(identity: &Identity) -> String {
    let canonical = identity.fields().map(|(_, value)| serde_json::json!(value).to_string()).join("\n");
    Sha256::digest(canonical).iter().take(8).fold("h:".to_owned(), |mut key, byte| {
        let _ = write!(key, "{byte:02x}");
        key
    })
}

fn read_amount(value: &Bson) -> Option<Amount> {
    match value {
        Bson::Double(amount) => Amount::from_f64(*amount),
        Bson::Int32(_) | Bson::Int64(_) | Bson::Decimal128(_) => value_text(value).parse().ok(),
        _ => None,
    }
}

fn value_text(value: &Bson) -> String {
    match value {
        Bson::Int32(number) => number.to_string(),
        Bson::Int64(number) => number.to_string(),
        Bson::Decimal128(number) => number.to_string(),
        other => other.to_string(),
    }
}

fn id_text(id: &Bson) -> String {
    match id {
        Bson::ObjectId(id) => id.to_hex(),
        Bson::String(text) => text.clone(),
        other => format!("{:?}:{other}", other.element_type()),
    }
}

pub(super) fn number(value: Option<&Bson>) -> Option<EmailId> {
    match value? {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        Bson::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(*number as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_without_anything_to_tell_it_by_is_not_addressed() {
        let entry = |element: Document| read_entry(0, &element);
        assert!(entry(doc! { "id": "cr_1", "sender_name": null, "reference_number": 12345 }).addressable);
        assert!(!entry(doc! { "sender_name": null, "sender_email": "" }).addressable);
        assert!(!entry(doc! { "id": 5, "sender_name": "a" }).addressable);
        assert!(!entry(doc! { "sender_name": ["a", "b"], "sender_email": "x" }).addressable);
        let hashed = entry(doc! { "sender_name": "a" });
        assert!(hashed.addressable && hashed.entry_key.starts_with("h:") && hashed.entry_key.len() == 18);
        assert_ne!(hashed.entry_key, entry(doc! { "sender_email": "a" }).entry_key);
    }

    #[test]
    fn stored_amounts_of_every_number_type_are_read_and_others_are_told() {
        let stored = |value: Bson| read_entry(0, &doc! { "id": "a", "current_debt_amount": value }).stored;
        let known = |text: &str| StoredAmount::Known(text.parse().unwrap());
        assert_eq!(stored(Bson::Double(19045.67)), known("19045.67"));
        assert_eq!(stored(Bson::Int32(980)), known("980"));
        assert_eq!(stored(Bson::Int64(980)), known("980"));
        assert_eq!(stored(Bson::Null), StoredAmount::None);
        for value in
            [Bson::Double(f64::NAN), Bson::Double(-1.0), Bson::String("12".into()), Bson::Array(vec![])]
        {
            assert_eq!(stored(value), StoredAmount::Unreadable);
        }
    }

    #[test]
    fn entries_of_one_key_and_shifted_positions_take_part_but_are_never_written() {
        let addressable = |entries: Vec<Document>, length: i32| {
            let found = read_client(doc! { "_id": 1, LIST: entries, "list_length": length }).unwrap();
            found.client.entries.iter().map(|entry| entry.addressable).collect::<Vec<_>>()
        };
        let id = |id: &str| doc! { "id": id };
        assert_eq!(addressable(vec![id("a"), id("b"), id("a")], 3), [false, true, false]);
        assert_eq!(addressable(vec![id("a"), doc! { "id": "a", "reference_number": 5 }], 2), [false, false]);
        assert_eq!(addressable(vec![id("a"), doc! { "id": ["a"] }], 2), [false, false]);
        assert_eq!(addressable(vec![id("a"), doc! { "sender_name": "x" }], 3), [true, false]);
        assert!(read_client(doc! { "_id": 1, LIST: "text" }).unwrap().client.entries.is_empty());
    }
}
