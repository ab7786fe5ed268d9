//! Client documents as BSON: reading them into plain data, and the statement that updates an entry as it was read.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of BSON's twenty types a few are meant, and all others are treated alike"
)]

use crate::client::{Client, Entry, Fence, Identity, StoredAmount};
use jiff::Timestamp;
use mongodb::bson::{
    Bson, DateTime, RawArrayBuf, RawBson, RawBsonRef, RawDocument, RawDocumentBuf,
    raw::{BindRawBsonRef, CString},
    rawdoc,
};
use sha2::{Digest, Sha256};
use shared::{
    message::{CreditorDebtUpdate, EmailId},
    money::Amount,
};
use std::{collections::HashMap, fmt::Write};

/// What the list is called in a client document.
pub(super) const LIST: &str = "final_creditor_list";

/// A client and its document, of which an update repeats what it has read.
#[derive(Debug)]
pub struct Found {
    /// The plain data.
    pub client: Client,
    document: RawDocumentBuf,
}

impl Found {
    /// A client without its document.
    #[cfg(test)]
    pub(crate) fn of(client: Client) -> Found {
        Found { client, document: RawDocumentBuf::new() }
    }

    /// Its `_id`.
    pub(super) fn id(&self) -> Option<RawBsonRef<'_>> {
        self.document.get("_id").ok().flatten()
    }

    /// The size of what was read.
    pub(super) fn bytes(&self) -> usize {
        self.document.as_bytes().len()
    }

    /// The fields of [`AS_READ`] of the entry at this position.
    fn as_read(&self, position: usize) -> Option<[Option<RawBsonRef<'_>>; AS_READ.len()]> {
        let list = self.document.get_array(LIST).ok()?;
        Some(fields_of(list.into_iter().nth(position)?.ok()?.as_document()?, AS_READ))
    }

    /// Whether an entry can only be addressed by its position.
    pub(super) fn needs_positions(&self) -> bool {
        self.client.entries.iter().any(|entry| entry.id.is_none())
    }
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
pub(super) const AS_READ: [&str; 4] = ["id", "current_debt_amount", "response_received_at", MARK];
/// Our mark in an entry.
pub(super) const MARK: &str = "_relay";

/// The update of one entry, which takes effect only if the entry is as it was read: same identity, same amount and date, and a
/// stamp that is a string lower than ours (or none, if none was read). None = a stored value can be no part of a filter.
pub(super) fn statement(
    EntryUpdate { found, entry, update, amount }: &EntryUpdate<'_>,
) -> Option<RawDocumentBuf> {
    let stamp = update.stamp.to_string();
    let (id, as_read) = (found.id()?, found.as_read(entry.position)?);
    let (place, filter_place) = match &entry.id {
        Some(_) => (format!("{LIST}.$[e]"), "e".to_owned()),
        None => (format!("{LIST}.{}", entry.position), format!("{LIST}.{}", entry.position)),
    };
    let mut filter = Fields { place: &filter_place, document: RawDocumentBuf::new() };
    for (name, value) in AS_READ.into_iter().zip(as_read) {
        match (name, value) {
            // Equality would also match inside an array.
            ("id", Some(RawBsonRef::String(id))) => {
                filter.set(name, rawdoc! { "$eq": id, "$not": { "$type": "array" } })?
            }
            (MARK, _) if let Some(fence) = &entry.fence => {
                // A repair wants the very mark that its plan has seen, which may be as high as its own.
                let passes = match update.expected {
                    Some(_) => rawdoc! { "$type": "string", "$eq": fence.stamp.as_str() },
                    None => rawdoc! { "$type": "string", "$lt": stamp.as_str() },
                };
                filter.set("_relay.stamp", passes)?;
            }
            (MARK, None) => filter.set("_relay.stamp", rawdoc! { "$exists": false })?,
            (_, Some(RawBsonRef::Undefined)) => filter.set(name, rawdoc! { "$type": "undefined" })?,
            (_, Some(value)) => filter.set(name, rawdoc! { "$eq": value })?,
            (_, None) => filter.set(name, rawdoc! { "$exists": false })?,
        }
    }
    let is_there = update.expected.as_ref().is_some_and(|expected| expected.amount == Some(*amount));
    // Where the amount is right, a repair gives the mark back and leaves everything else to whoever has changed it.
    let mut new = match is_there {
        true => Fields { place: &place, document: RawDocumentBuf::new() },
        false => new_fields(&place, update, *amount)?,
    };
    // What was there before a lost mark is not known any more.
    let previous = entry.stored.known().filter(|_| !is_there);
    let previous = previous.map_or(RawBson::Null, |amount| RawBson::Double(amount.to_f64()));
    new.set(MARK, rawdoc! { "stamp": stamp.as_str(), "email": update.email_id, "previous": previous })?;
    let change = rawdoc! { "$set": new.document };
    if entry.id.is_some() {
        return Some(rawdoc! { "q": { "_id": id }, "u": change, "arrayFilters": [filter.document] });
    }
    for (name, value) in entry.identity.fields() {
        filter.set(
            name,
            rawdoc! { "$eq": value.map_or(RawBson::Null, |text| RawBson::String(text.to_owned())) },
        )?;
    }
    filter.place = "";
    filter.set("_id", id)?;
    Some(rawdoc! { "q": filter.document, "u": change })
}

/// A document whose fields all lie in one place.
struct Fields<'a> {
    place: &'a str,
    document: RawDocumentBuf,
}

impl Fields<'_> {
    /// None = no name of a field.
    fn set(&mut self, name: &str, value: impl BindRawBsonRef) -> Option<()> {
        let name = if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) };
        self.document.append(CString::try_from(name).ok()?, value);
        Some(())
    }
}

/// What a debt update sets in its entry. `claim_amount` is the original debt and is never written.
fn new_fields<'a>(place: &'a str, update: &CreditorDebtUpdate, amount: Amount) -> Option<Fields<'a>> {
    let received = DateTime::from_millis(update.received_at.as_millisecond());
    let mut fields = Fields { place, document: RawDocumentBuf::new() };
    fields.set("current_debt_amount", amount.to_f64())?;
    fields.set("creditor_response_amount", amount.to_f64())?;
    fields.set("amount_source", "creditor_response")?;
    fields.set("response_received_at", received)?;
    fields.set("last_contacted_at", received)?;
    fields.set("contact_status", "responded")?;
    if let Some(confidence) = update.extraction_confidence {
        fields.set("extraction_confidence", confidence)?;
    }
    if let Some(text) = &update.response_text {
        fields.set("creditor_response_text", text.as_str())?;
    }
    if !update.reference_numbers.is_empty() {
        let numbers: RawArrayBuf = update.reference_numbers.iter().map(String::as_str).collect();
        fields.set("response_reference_numbers", numbers)?;
    }
    Some(fields)
}

/// The values of these fields, by one walk over the document. A value that is none (no UTF-8) shows as undefined.
fn fields_of<'a, const N: usize>(document: &'a RawDocument, names: [&str; N]) -> [Option<RawBsonRef<'a>>; N] {
    let mut values = [None; N];
    for element in document.iter_elements().map_while(Result::ok) {
        if let Some(at) = names.iter().position(|name| *name == element.key().as_str())
            && let Some(value) = values.get_mut(at)
        {
            *value = Some(element.value().unwrap_or(RawBsonRef::Undefined));
        }
    }
    values
}

fn text(value: Option<RawBsonRef<'_>>) -> Option<String> {
    value.and_then(RawBsonRef::as_str).map(str::to_owned)
}

/// Reads a document as far as it has the expected shape; what has not is never written.
pub(super) fn read_client(document: RawDocumentBuf) -> Option<Found> {
    let names = ["_id", "aktenzeichen", "firstName", "lastName", LIST, "list_length"];
    let [id, aktenzeichen, first_name, last_name, list, length] = fields_of(&document, names);
    let id = id?;
    let list: Vec<RawBsonRef<'_>> = list
        .and_then(RawBsonRef::as_array)
        .map(|list| list.into_iter().map(|element| element.unwrap_or(RawBsonRef::Undefined)).collect())
        .unwrap_or_default();
    let positions_hold = number(length).is_some_and(|length| usize::try_from(length) == Ok(list.len()));
    let elements = || list.iter().enumerate().filter_map(|(at, element)| Some((at, element.as_document()?)));
    let mut entries: Vec<Entry> = elements().map(|(at, element)| read_entry(at, element)).collect();
    // Two entries of one key cannot be told apart by a filter, whatever else they hold: neither may be written.
    let mut count: HashMap<String, usize> = HashMap::new();
    let in_arrays = elements().filter_map(|(_, element)| element.get_array("id").ok());
    let in_arrays = in_arrays.flatten().filter_map(|id| Some(id.ok()?.as_str()?.to_owned()));
    for key in entries.iter().map(|entry| entry.entry_key.clone()).chain(in_arrays) {
        *count.entry(key).or_default() += 1;
    }
    for entry in &mut entries {
        entry.addressable &=
            count.get(&entry.entry_key) == Some(&1) && (positions_hold || entry.id.is_some());
    }
    let client = Client {
        client_id: id_text(id),
        aktenzeichen: text(aktenzeichen),
        first_name: text(first_name).unwrap_or_default(),
        last_name: text(last_name).unwrap_or_default(),
        entries,
    };
    Some(Found { client, document })
}

/// Without a string `id` an entry is addressed by its identity, so that has to hold something, and nothing but strings: equality
/// would also match inside an array.
fn read_entry(position: usize, element: &RawDocument) -> Entry {
    let identity_names = Identity::default().fields().map(|(name, _)| name);
    let [id, amount, answered_at, mark] = fields_of(element, AS_READ);
    let identity_values = fields_of(element, identity_names);
    let [
        sender_name,
        sender_email,
        glaeubiger_name,
        glaeubigervertreter_name,
        actual_creditor,
        reference_number,
    ] = identity_values.map(text);
    let identity = Identity {
        sender_name,
        sender_email,
        glaeubiger_name,
        glaeubigervertreter_name,
        actual_creditor,
        reference_number,
    };
    let plain = |value: &Option<RawBsonRef<'_>>| {
        matches!(value, None | Some(RawBsonRef::Null | RawBsonRef::String(_)))
    };
    let id_is_plain = plain(&id);
    let id = text(id).filter(|id| !id.is_empty());
    let addressable =
        id.is_some() || (!identity.is_empty() && identity_values.iter().all(plain) && id_is_plain);
    let stored = match amount {
        None | Some(RawBsonRef::Null) => StoredAmount::None,
        Some(value) => read_amount(value).map_or(StoredAmount::Unreadable, StoredAmount::Known),
    };
    let fence = mark.and_then(RawBsonRef::as_document).and_then(|mark| {
        let [stamp, email, previous] = fields_of(mark, ["stamp", "email", "previous"]);
        let email_id = number(email).unwrap_or(0);
        Some(Fence { stamp: text(stamp)?, email_id, previous: previous.and_then(read_amount) })
    });
    let entry_key = id.clone().unwrap_or_else(|| identity_key(&identity));
    let answered_at = answered_at
        .and_then(RawBsonRef::as_datetime)
        .and_then(|at| Timestamp::from_millisecond(at.timestamp_millis()).ok());
    Entry { position, id, entry_key, addressable, identity, stored, answered_at, fence }
}

/// `h:` and 16 hex digits of SHA-256 over the identity fields, each as JSON string or null, one per line.
fn identity_key(identity: &Identity) -> String {
    let canonical = identity.fields().map(|(_, value)| serde_json::json!(value).to_string()).join("\n");
    Sha256::digest(canonical).iter().take(8).fold("h:".to_owned(), |mut key, byte| {
        let _ = write!(key, "{byte:02x}");
        key
    })
}

fn read_amount(value: RawBsonRef<'_>) -> Option<Amount> {
    match value {
        RawBsonRef::Double(amount) => Amount::from_f64(amount),
        RawBsonRef::Int32(number) => number.to_string().parse().ok(),
        RawBsonRef::Int64(number) => number.to_string().parse().ok(),
        RawBsonRef::Decimal128(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

fn id_text(id: RawBsonRef<'_>) -> String {
    match id {
        RawBsonRef::ObjectId(id) => id.to_hex(),
        RawBsonRef::String(text) => text.to_owned(),
        other => {
            let value = Bson::try_from(other).map(|value| value.to_string()).unwrap_or_default();
            format!("{:?}:{value}", other.element_type())
        }
    }
}

fn number(value: Option<RawBsonRef<'_>>) -> Option<EmailId> {
    match value? {
        RawBsonRef::Int32(number) => Some(i64::from(number)),
        RawBsonRef::Int64(number) => Some(number),
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        RawBsonRef::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(number as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::{Document, doc};

    fn raw(document: &Document) -> RawDocumentBuf {
        RawDocumentBuf::try_from(document).unwrap()
    }

    #[test]
    fn an_entry_without_anything_to_tell_it_by_is_not_addressed() {
        let entry = |element: Document| read_entry(0, &raw(&element));
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
        let stored =
            |value: Bson| read_entry(0, &raw(&doc! { "id": "a", "current_debt_amount": value })).stored;
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
            let found = read_client(raw(&doc! { "_id": 1, LIST: entries, "list_length": length })).unwrap();
            found.client.entries.iter().map(|entry| entry.addressable).collect::<Vec<_>>()
        };
        let id = |id: &str| doc! { "id": id };
        assert_eq!(addressable(vec![id("a"), id("b"), id("a")], 3), [false, true, false]);
        assert_eq!(addressable(vec![id("a"), doc! { "id": "a", "reference_number": 5 }], 2), [false, false]);
        assert_eq!(addressable(vec![id("a"), doc! { "id": ["a"] }], 2), [false, false]);
        assert_eq!(addressable(vec![id("a"), doc! { "sender_name": "x" }], 3), [true, false]);
        assert!(read_client(raw(&doc! { "_id": 1, LIST: "text" })).unwrap().client.entries.is_empty());
    }
}
