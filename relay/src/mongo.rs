//! MongoDB: finds client documents and updates creditor entries in fenced batches. The only file that names the mongodb crate.
//!
//! What the driver (3.9) does not do for a raw command is done here: the write concern stands inside the command, the reply's
//! writeErrors and writeConcernError are read (the call itself returns Ok with them), and every call has a timeout of its own.

use crate::{
    client::{Client, Entry, Fence, Identity, StoredAmount},
    outcome::{Failure, FailureClass},
};
use futures_util::TryStreamExt;
use mongodb::{
    Collection, Database,
    bson::{Bson, DateTime, Document, doc},
    error::{Error, ErrorKind},
    options::{ClientOptions, Collation, CollationStrength, ReadConcern, ReadPreference, SelectionCriteria},
};
use sha2::{Digest, Sha256};
use shared::{
    message::{CreditorDebtUpdate, EmailId, Stamp},
    money::Amount,
};
use std::{collections::HashMap, fmt::Write, time::Duration};

/// How long the driver looks for a primary; its own default of 30 s would outlast every lease.
const SERVER_SELECTION: Duration = Duration::from_secs(2);
/// A reply later than this is an unknown outcome; the server stops working on the command a little earlier.
const CALL: Duration = Duration::from_secs(4);
/// `maxTimeMS` and `wtimeout` of a command.
const SERVER_TIME_MS: i32 = 3500;
/// Most documents of one find: more than a batch of messages can mean.
const FIND_LIMIT: i64 = 5000;
/// What the list is called in a client document.
const LIST: &str = "final_creditor_list";

/// The collection `clients`.
#[derive(Debug, Clone)]
pub struct Clients {
    database: Database,
    collection: Collection<Document>,
}

/// A client with what an update of its entries has to repeat of the document as it was read.
#[derive(Debug)]
pub struct Found {
    /// The plain data.
    pub client: Client,
    id: Bson,
    amounts: HashMap<String, Option<Bson>>,
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

/// What a batch came to.
#[derive(Debug)]
pub struct Written {
    /// Whether every statement without an error of its own changed its entry.
    pub all_changed: bool,
    /// The statements that the server refused, by index.
    pub refused: HashMap<usize, Failure>,
}

impl Clients {
    /// Reads the URL and prepares the client; does not touch the network.
    ///
    /// # Errors
    /// The URL cannot be used; the text never repeats it.
    pub async fn new(url: &str, database: &str, application_name: &str) -> Result<Clients, String> {
        let unusable = |error: Error| format!("the MongoDB URL is not usable: {}", text_of(&error));
        let mut options = ClientOptions::parse(url).await.map_err(unusable)?;
        options.app_name.get_or_insert_with(|| application_name.to_owned());
        options.server_selection_timeout = Some(SERVER_SELECTION);
        options.connect_timeout.get_or_insert(SERVER_SELECTION);
        let database = mongodb::Client::with_options(options).map_err(unusable)?.database(database);
        let collection = database.collection("clients");
        Ok(Clients { database, collection })
    }

    /// Whether a primary answers.
    ///
    /// # Errors
    /// [`Failure`] of the sink.
    pub async fn ping(&self) -> Result<(), Failure> {
        let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
        bounded(self.database.run_command(doc! { "ping": 1 }).selection_criteria(primary).into_future())
            .await?;
        Ok(())
    }

    /// What the relay needs of the server and does not find, each with what to do; empty = all there.
    ///
    /// # Errors
    /// [`Failure`] of the sink.
    pub async fn missing_setup(&self) -> Result<Vec<String>, Failure> {
        let mut missing = Vec::new();
        let hello = bounded(self.database.run_command(doc! { "hello": 1 }).into_future()).await?;
        if !hello.contains_key("setName") && hello.get_str("msg").ok() != Some("isdbgrid") {
            missing.push("MongoDB: not a replica set, so no majority write: start mongod with --replSet and initiate it".into());
        }
        let keys = match bounded(async {
            self.collection.list_indexes().await?.try_collect::<Vec<_>>().await
        })
        .await
        {
            Ok(indexes) => indexes,
            Err(failure) if failure.text.contains("NamespaceNotFound") => Vec::new(),
            Err(failure) => return Err(failure),
        };
        let has = |fields: &[&str], german: bool| {
            keys.iter().any(|index| {
                let starts = index.keys.keys().zip(fields).all(|(key, field)| key == field)
                    && index.keys.len() >= fields.len();
                let collation = index.options.as_ref().and_then(|options| options.collation.as_ref());
                starts && if german { collation.is_some_and(is_german) } else { collation.is_none() }
            })
        };
        if !has(&["aktenzeichen"], false) {
            missing.push(
                "MongoDB: no index on clients.aktenzeichen: db.clients.createIndex({aktenzeichen: 1})".into(),
            );
        }
        if !has(&["lastName", "firstName"], true) {
            let command = "db.clients.createIndex({lastName: 1, firstName: 1}, {collation: {locale: \"de\", strength: 2}})";
            missing.push(format!("MongoDB: no German name index on clients: {command}"));
        }
        Ok(missing)
    }

    /// The clients of any of these numbers. No collation: it would make this a collection scan.
    ///
    /// # Errors
    /// [`Failure`] of the sink.
    pub async fn find_by_numbers(&self, numbers: &[&str]) -> Result<Vec<Found>, Failure> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        self.find(doc! { "aktenzeichen": { "$in": numbers } }, None).await
    }

    /// The clients of any of these (last name, first name), by German collation: case and ß/ss do not matter.
    ///
    /// # Errors
    /// [`Failure`] of the sink.
    pub async fn find_by_names(&self, names: &[&(String, String)]) -> Result<Vec<Found>, Failure> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        // A superset (any last name with any first name); matching compares the pairs.
        let (last, first): (Vec<&str>, Vec<&str>) =
            names.iter().map(|(l, f)| (l.as_str(), f.as_str())).unzip();
        let german = Collation::builder().locale("de").strength(CollationStrength::Secondary).build();
        self.find(doc! { "lastName": { "$in": last }, "firstName": { "$in": first } }, Some(german)).await
    }

    /// Reads lead to the end of a message, so they are primary and majority.
    async fn find(&self, filter: Document, collation: Option<Collation>) -> Result<Vec<Found>, Failure> {
        let mut fields = doc! { "aktenzeichen": 1, "firstName": 1, "lastName": 1 };
        for field in Identity::default().fields().map(|(name, _)| name).into_iter().chain([
            "id",
            "current_debt_amount",
            "_relay",
        ]) {
            fields.insert(format!("{LIST}.{field}"), 1);
        }
        // The projection leaves out elements that are no documents, which would shift the positions.
        fields.insert(
            "list_length",
            doc! { "$cond": [{ "$isArray": format!("${LIST}") }, { "$size": format!("${LIST}") }, -1] },
        );
        let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
        let mut find = self.collection.find(filter).projection(fields).limit(FIND_LIMIT).max_time(CALL);
        find = find.selection_criteria(primary).read_concern(ReadConcern::majority());
        if let Some(collation) = collation {
            find = find.collation(collation);
        }
        let documents: Vec<Document> = bounded(async { find.await?.try_collect().await }).await?;
        Ok(documents.into_iter().filter_map(read_client).collect())
    }

    /// Writes all in one command, unordered, acknowledged by the majority and its journals.
    ///
    /// # Errors
    /// [`Failure`] where it concerns the whole batch; [`FailureClass::UnknownOutcome`] when it may have taken effect.
    pub async fn update(&self, updates: &[EntryUpdate<'_>]) -> Result<Written, Failure> {
        let statements: Vec<Document> = updates.iter().map(statement).collect();
        let command = doc! {
            "update": self.collection.name(),
            "ordered": false,
            "maxTimeMS": SERVER_TIME_MS,
            "writeConcern": { "w": "majority", "j": true, "wtimeout": SERVER_TIME_MS },
            "updates": statements,
        };
        let reply = bounded(self.database.run_command(command).into_future()).await?;
        if let Ok(error) = reply.get_document("writeConcernError") {
            let text = format!("write concern: {}", server_text(error));
            return Err(Failure::new(FailureClass::UnknownOutcome, text));
        }
        let mut refused = HashMap::new();
        for error in reply
            .get_array("writeErrors")
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
            .filter_map(Bson::as_document)
        {
            let index = error.get_i32("index").ok().and_then(|index| usize::try_from(index).ok());
            if let Some(index) = index {
                refused.insert(index, Failure::new(class_of_code(code_of(error)), server_text(error)));
            }
        }
        let changed = number(reply.get("nModified")).unwrap_or(0);
        let all_changed = usize::try_from(changed) == Ok(updates.len() - refused.len().min(updates.len()));
        Ok(Written { all_changed, refused })
    }
}

/// The update of one entry, which takes effect only if the entry is as it was read: same identity, same amount, and a stamp that
/// is a string lower than ours (or none, if none was read).
fn statement(EntryUpdate { found, entry, update, amount }: &EntryUpdate<'_>) -> Document {
    let stamp = update.stamp.to_string();
    let fence = match entry.fence {
        Some(_) => doc! { "$type": "string", "$lt": &stamp },
        None => doc! { "$not": { "$type": "string" } },
    };
    let stored = found.amounts.get(&entry.entry_key).cloned().flatten();
    let as_read = stored.clone().map_or_else(|| doc! { "$exists": false }, |value| doc! { "$eq": value });
    let mut fields = new_fields(update, *amount);
    let previous = entry.stored.known().map_or(Bson::Null, |amount| Bson::Double(amount.to_f64()));
    fields.insert("_relay", doc! { "stamp": &stamp, "email": update.email_id, "previous": previous });
    if let Some(id) = &entry.id {
        let set = prefixed(&format!("{LIST}.$[e]"), fields);
        let filter = doc! { "e.id": id, "e._relay.stamp": fence, "e.current_debt_amount": as_read };
        return doc! { "q": { "_id": &found.id }, "u": { "$set": set }, "arrayFilters": [filter] };
    }
    let place = format!("{LIST}.{}", entry.position);
    let mut query = doc! { "_id": &found.id };
    for (name, value) in entry.identity.fields() {
        query.insert(format!("{place}.{name}"), doc! { "$eq": value });
    }
    query.insert(format!("{place}._relay.stamp"), fence);
    query.insert(format!("{place}.current_debt_amount"), as_read);
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

/// Reads a document as far as it has the expected shape; what has not is left out and so never written.
fn read_client(document: Document) -> Option<Found> {
    let id = document.get("_id")?.clone();
    let text = |name: &str| document.get_str(name).ok().map(str::to_owned);
    let list = document.get_array(LIST).map(Vec::as_slice).unwrap_or_default();
    let positions_hold =
        number(document.get("list_length")).is_some_and(|length| usize::try_from(length) == Ok(list.len()));
    let mut entries = Vec::new();
    let mut amounts = HashMap::new();
    for (position, element) in list.iter().enumerate() {
        let Some(element) = element.as_document() else { continue };
        let Some(entry) = read_entry(position, element).filter(|entry| positions_hold || entry.id.is_some())
        else {
            continue;
        };
        amounts.insert(entry.entry_key.clone(), element.get("current_debt_amount").cloned());
        entries.push(entry);
    }
    // Two entries of one key cannot be told apart by a filter: neither may be written.
    let mut count: HashMap<String, usize> = HashMap::new();
    for entry in &entries {
        *count.entry(entry.entry_key.clone()).or_default() += 1;
    }
    entries.retain(|entry| count.get(&entry.entry_key) == Some(&1));
    let client = Client {
        client_id: id_text(&id),
        aktenzeichen: text("aktenzeichen"),
        first_name: text("firstName").unwrap_or_default(),
        last_name: text("lastName").unwrap_or_default(),
        entries,
    };
    Some(Found { client, id, amounts })
}

/// None for an entry that nothing identifies, or whose identity is of another type: equality would also match inside an array.
fn read_entry(position: usize, element: &Document) -> Option<Entry> {
    let field = |name: &str| match element.get(name) {
        None | Some(Bson::Null) => Some(None),
        Some(Bson::String(text)) => Some(Some(text.clone())),
        Some(_) => None,
    };
    let identity = Identity {
        sender_name: field("sender_name")?,
        sender_email: field("sender_email")?,
        glaeubiger_name: field("glaeubiger_name")?,
        glaeubigervertreter_name: field("glaeubigervertreter_name")?,
        actual_creditor: field("actual_creditor")?,
        reference_number: field("reference_number")?,
    };
    let id = element.get_str("id").ok().filter(|id| !id.is_empty()).map(str::to_owned);
    if id.is_none() && identity.is_empty() {
        return None;
    }
    let stored = match element.get("current_debt_amount") {
        None | Some(Bson::Null) => StoredAmount::None,
        Some(value) => read_amount(value).map_or(StoredAmount::Unreadable, StoredAmount::Known),
    };
    let fence = element.get_document("_relay").ok().and_then(|mark| {
        let stamp: Stamp = mark.get_str("stamp").ok()?.parse().ok()?;
        Some(Fence { stamp, email_id: number(mark.get("email")).unwrap_or(0) })
    });
    let entry_key = id.clone().unwrap_or_else(|| identity_key(&identity));
    Some(Entry { position, id, entry_key, identity, stored, fence })
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

fn number(value: Option<&Bson>) -> Option<EmailId> {
    match value? {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        Bson::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(*number as i64),
        _ => None,
    }
}

fn is_german(collation: &Collation) -> bool {
    collation.locale == "de" && matches!(collation.strength, Some(CollationStrength::Secondary))
}

/// A call with a time limit of our own: the driver has no socket timeout.
async fn bounded<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    let mut failure = match tokio::time::timeout(CALL, call).await {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => classify(&error),
        Err(_) => Failure::new(FailureClass::UnknownOutcome, format!("no reply within {} s", CALL.as_secs())),
    };
    if failure.class.is_the_sinks() {
        failure.text = format!("MongoDB unreachable since {:.0}: {}", jiff::Timestamp::now(), failure.text);
    }
    Err(failure)
}

/// Sorts a driver's error by what it says about the server and the message.
fn classify(error: &Error) -> Failure {
    let kind = error.kind.as_ref();
    if let ErrorKind::Command(command) = kind {
        // Not its message: that may repeat values of the document.
        let text = format!("MongoDB error {} {}", command.code, command.code_name);
        return Failure::new(class_of_code(command.code), text);
    }
    let (class, what) = if matches!(kind, ErrorKind::Authentication { .. }) {
        (FailureClass::SinkMisconfigured, "login refused")
    } else if matches!(kind, ErrorKind::InvalidTlsConfig { .. } | ErrorKind::IncompatibleServer { .. }) {
        (FailureClass::SinkMisconfigured, "cannot talk to this server")
    } else if matches!(kind, ErrorKind::ServerSelection { .. } | ErrorKind::DnsResolve { .. }) {
        (FailureClass::SinkDown, "no primary found")
    } else if matches!(kind, ErrorKind::ConnectionPoolCleared { .. }) {
        (FailureClass::SinkDown, "connection lost")
    } else if matches!(kind, ErrorKind::Io(_)) {
        // A connection that breaks leaves open whether the server had the command.
        (FailureClass::UnknownOutcome, "network")
    } else {
        (FailureClass::Permanent, "the driver refused")
    };
    Failure::new(class, format!("{what}: {}", text_of(error)))
}

/// The server's codes by class; an unlisted one may pass by itself and is counted.
fn class_of_code(code: i32) -> FailureClass {
    match code {
        6 | 7 | 89 | 91 | 189 | 262 | 9001 | 10_107 | 11_600 | 11_602 | 13_435 | 13_436 | 10_058 => {
            FailureClass::SinkDown
        }
        13 | 18 | 79 | 100 | 8000 | 14_031 => FailureClass::SinkMisconfigured,
        50 | 64 | 11_601 => FailureClass::UnknownOutcome,
        9 | 14 | 15 | 22 | 40 | 52 | 57 | 66 | 121 | 10_334 | 11_000 | 17_419 => FailureClass::Permanent,
        // Among the others 2 and 28 on an entry that was there: the list has moved under us, and 112: a rival wrote first.
        _ => FailureClass::Transient,
    }
}

fn code_of(error: &Document) -> i32 {
    error.get_i32("code").unwrap_or(0)
}

/// Code and name only: a server's message may repeat values of the document.
fn server_text(error: &Document) -> String {
    format!("MongoDB error {} {}", code_of(error), error.get_str("codeName").unwrap_or_default())
}

/// The driver's own text, cut before what could hold a server description of several lines.
fn text_of(error: &Error) -> String {
    error.kind.to_string().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_without_anything_to_tell_it_by_is_not_addressed() {
        let key = |element: Document| read_entry(0, &element).map(|entry| entry.entry_key);
        assert_eq!(key(doc! { "id": "cr_1", "sender_name": null }), Some("cr_1".into()));
        assert_eq!(key(doc! { "sender_name": null, "sender_email": "" }), None);
        assert_eq!(key(doc! { "id": 5, "sender_name": ["a", "b"] }), None);
        let hashed = key(doc! { "sender_name": "a" }).unwrap();
        assert!(hashed.starts_with("h:") && hashed.len() == 18);
        assert_ne!(Some(hashed), key(doc! { "sender_email": "a" }));
    }

    #[test]
    fn stored_amounts_of_every_number_type_are_read_and_others_are_told() {
        let stored =
            |value: Bson| read_entry(0, &doc! { "id": "a", "current_debt_amount": value }).unwrap().stored;
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
    fn duplicate_ids_and_shifted_positions_are_never_written() {
        let keys = |document: Document| {
            read_client(document)
                .unwrap()
                .client
                .entries
                .iter()
                .map(|entry| entry.entry_key.clone())
                .collect::<Vec<_>>()
        };
        let list =
            |entries: Vec<Document>, length: i32| doc! { "_id": 1, LIST: entries, "list_length": length };
        assert_eq!(keys(list(vec![doc! { "id": "a" }, doc! { "id": "b" }, doc! { "id": "a" }], 3)), ["b"]);
        assert_eq!(keys(list(vec![doc! { "id": "a" }, doc! { "sender_name": "x" }], 3)), ["a"]);
        assert_eq!(keys(doc! { "_id": 1, LIST: "text" }), Vec::<String>::new());
    }
}
