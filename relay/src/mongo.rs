//! MongoDB: finds client documents and updates creditor entries in fenced batches. Nothing outside this module names the mongodb crate.
//!
//! What the driver (3.9) does not do for a raw command is done here: the write concern stands inside the command, the reply's
//! writeErrors and writeConcernError are read (the call itself returns Ok with them), and every call has a timeout of its own.

mod comment;
mod document;
mod failure;
mod setup;

use crate::{
    client::{Client, Identity},
    outcome::{Failure, FailureClass},
};
use comment::Comment;
use document::{AS_READ, LIST, MARK, read_client, statement};
pub use document::{EntryUpdate, Found};
use failure::{class_of_code, classify, code_of, server_text, text_of};
use futures_util::TryStreamExt;
use jiff::Timestamp;
use mongodb::{
    Collection, Database,
    bson::{Bson, Document, RawArrayBuf, RawBson, RawDocumentBuf, doc, oid::ObjectId, rawdoc},
    error::Error,
    options::{
        ClientOptions, Collation, CollationStrength, FindOptions, Hint, ReadConcern, ReadPreference,
        SelectionCriteria,
    },
};
use shared::{message::MessageId, trace::TraceId};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long the driver looks for a primary; its own default of 30 s would outlast every lease.
const SERVER_SELECTION: Duration = Duration::from_secs(2);
/// A reply later than this is an unknown outcome; the server stops working on the command a little earlier.
const CALL: Duration = Duration::from_secs(4);
/// `maxTimeMS` of a command.
const SERVER_TIME: Duration = Duration::from_millis(3500);
/// `wtimeout`, a little earlier: what is missing is then the majority and not just the time.
const MAJORITY_TIME_MS: i32 = 3000;
/// Most documents of one find. A batch that means more is halved, since what a cut-off document holds is not known.
const FIND_LIMIT: usize = 5000;
/// Most bytes of one find, halved alike; more than the largest document of MongoDB has, so that one message can always be read.
const FIND_BYTES: usize = 32 << 20;
/// Names of one find: each is a branch of its `$or`, and a look into the index.
const NAMES_PER_FIND: usize = 100;

/// The collection `clients`.
#[derive(Debug, Clone)]
pub struct Clients {
    database: Database,
    collection: Collection<RawDocumentBuf>,
    /// Nothing is ever written.
    is_read_only: bool,
    /// What its finds and updates are called in MongoDB's logs.
    comment: Comment,
    /// Since when no call has succeeded; None after one that has.
    away_since: Arc<Mutex<Option<Timestamp>>>,
}

/// A place in the order of all clients; the default is their beginning.
#[derive(Debug, Default)]
pub struct Place(Option<Bson>);

/// Some clients in the order of their `_id`s.
#[derive(Debug)]
pub struct Page {
    /// Those that can be read.
    pub found: Vec<Found>,
    /// Where the next page begins; None = there are no more.
    pub next: Option<Place>,
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
        refuse_unverified(url)?;
        let unusable = |error: Error| format!("the MongoDB URL is not usable: {}", text_of(&error));
        let mut options = ClientOptions::parse(url).await.map_err(unusable)?;
        options.app_name.get_or_insert_with(|| application_name.to_owned());
        options.server_selection_timeout = Some(SERVER_SELECTION);
        options.connect_timeout.get_or_insert(SERVER_SELECTION);
        let database = mongodb::Client::with_options(options).map_err(unusable)?.database(database);
        let collection = database.collection("clients");
        let comment = Comment::by(application_name);
        Ok(Clients { database, collection, is_read_only: false, comment, away_since: Arc::default() })
    }

    /// The same, but every write is refused before it is sent.
    #[must_use]
    pub fn read_only(self) -> Clients {
        Clients { is_read_only: true, ..self }
    }

    /// The same, whose commands name these messages and their traces.
    #[must_use]
    pub fn about(&self, messages: impl Iterator<Item = (MessageId, Option<TraceId>)>) -> Clients {
        Clients { comment: self.comment.about(messages), ..self.clone() }
    }

    /// The same, whose commands name this as their reason.
    #[must_use]
    pub fn doing(&self, what: &str) -> Clients {
        Clients { comment: Comment::by(what), ..self.clone() }
    }

    /// Whether a primary answers.
    ///
    /// # Errors
    /// [`Failure`] of the sink.
    pub async fn ping(&self) -> Result<(), Failure> {
        let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
        self.bounded(self.database.run_command(doc! { "ping": 1 }).selection_criteria(primary).into_future())
            .await?;
        Ok(())
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

    /// The clients of these `_id`s, as [`Client::client_id`] writes them: an ObjectId's digits may also be a string's.
    ///
    /// # Errors
    /// [`Failure`] of the sink.
    pub async fn find_by_ids(&self, ids: &[&str]) -> Result<Vec<Found>, Failure> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let objects = ids.iter().filter_map(|id| ObjectId::parse_str(id).ok()).map(Bson::ObjectId);
        let numbers = ids.iter().filter_map(|id| numeric_id(id));
        let either: Vec<Bson> = ids.iter().map(|id| Bson::from(*id)).chain(objects).chain(numbers).collect();
        self.find(doc! { "_id": { "$in": either } }, None).await
    }

    /// The clients of any of these (last name, first name), by German collation: case and ß/ss do not matter.
    ///
    /// # Errors
    /// [`Failure`] of the sink.
    pub async fn find_by_names(&self, names: &[&(String, String)]) -> Result<Vec<Found>, Failure> {
        let german = Collation::builder().locale("de").strength(CollationStrength::Secondary).build();
        let mut found = Vec::new();
        for part in names.chunks(NAMES_PER_FIND) {
            let pair = |(last, first): &(String, String)| doc! { "lastName": last, "firstName": first };
            let pairs: Vec<Document> = part.iter().copied().map(pair).collect();
            found.extend(self.find(doc! { "$or": pairs }, Some(german.clone())).await?);
            if found.iter().map(Found::bytes).sum::<usize>() > FIND_BYTES {
                return Err(too_much());
            }
        }
        Ok(found)
    }

    /// The next clients of all, from this place on: so many at most, and fewer where they are large.
    ///
    /// # Errors
    /// [`Failure`] of the sink.
    pub async fn page(&self, from: &Place, limit: u32) -> Result<Page, Failure> {
        // By the bounds of the index: a filter would compare ids of one type only.
        let options = FindOptions::builder()
            .min(from.0.clone().map(|id| doc! { "_id": id }))
            .hint(Hint::Keys(doc! { "_id": 1 }))
            .sort(doc! { "_id": 1 })
            .limit(i64::from(limit) + 1)
            .build();
        let (mut documents, is_full) = self.read_some(Document::new(), fields(), options).await?;
        let mut next = None;
        if (is_full || documents.len() > usize::try_from(limit).unwrap_or(usize::MAX))
            && let Some(first) = documents.pop()
        {
            let unreadable = || Failure::new(FailureClass::Permanent, "a client document cannot be read");
            let id = first.get("_id").ok().flatten().ok_or_else(unreadable)?;
            next = Some(Place(Some(Bson::try_from(id).map_err(|_| unreadable())?)));
        }
        Ok(Page { found: documents.into_iter().filter_map(read_client).collect(), next })
    }

    /// The clients of a filter; those with an entry that only its position tells are read once more, with the list's length.
    async fn find(&self, filter: Document, collation: Option<Collation>) -> Result<Vec<Found>, Failure> {
        let mut fields = fields();
        let options = FindOptions::builder().collation(collation).build();
        let documents = self.read(filter, fields.clone(), options).await?;
        let found = documents.into_iter().filter_map(read_client);
        let (by_position, mut found): (Vec<Found>, Vec<Found>) = found.partition(Found::needs_positions);
        if !by_position.is_empty() {
            // The projection leaves out elements that are no documents, which would shift the positions. Not asked for every
            // document: a computed field makes the server build each result by its slow way.
            fields.insert(
                "list_length",
                doc! { "$cond": [{ "$isArray": format!("${LIST}") }, { "$size": format!("${LIST}") }, -1] },
            );
            let documents = self.read(one_of(by_position.iter())?, fields, FindOptions::default()).await?;
            found.extend(documents.into_iter().filter_map(read_client));
        }
        Ok(found)
    }

    /// Which of these updates, by index, their entries carry now. An entry without an id may be moved, so it is left out.
    ///
    /// # Errors
    /// [`Failure`] of the sink.
    pub async fn carried(&self, updates: &[EntryUpdate<'_>]) -> Result<HashSet<usize>, Failure> {
        let fields = doc! { format!("{LIST}.id"): 1, format!("{LIST}.current_debt_amount"): 1, format!("{LIST}.{MARK}"): 1 };
        let filter = one_of(updates.iter().map(|update| update.found))?;
        let documents = self.read(filter, fields, FindOptions::default()).await?;
        let found: Vec<Found> = documents.into_iter().filter_map(read_client).collect();
        let clients: HashMap<&str, &Client> =
            found.iter().map(|found| (found.client.client_id.as_str(), &found.client)).collect();
        let is_carried = |update: &EntryUpdate<'_>| {
            let client = clients.get(update.found.client.client_id.as_str());
            let mut entries = client.into_iter().flat_map(|client| &client.entries);
            let entry =
                entries.find(|entry| entry.addressable && entry.id.is_some() && entry.id == update.entry.id);
            let EntryUpdate { update, amount, .. } = update;
            entry
                .filter(|entry| entry.stored.known() == Some(*amount))
                .and_then(|entry| entry.fence.as_ref())
                .is_some_and(|fence| {
                    fence.stamp == update.stamp.to_string() && fence.email_id == update.email_id
                })
        };
        let carried = updates.iter().enumerate().filter(|(_, update)| is_carried(update));
        Ok(carried.map(|(index, _)| index).collect())
    }

    /// Reads lead to the end of a message, so they are primary and majority.
    async fn read(
        &self,
        filter: Document,
        fields: Document,
        options: FindOptions,
    ) -> Result<Vec<RawDocumentBuf>, Failure> {
        let (documents, is_full) = self.read_some(filter, fields, options).await?;
        if is_full { Err(too_much()) } else { Ok(documents) }
    }

    /// What is found, and whether that is as much as is read at once: there may be more.
    async fn read_some(
        &self,
        filter: Document,
        fields: Document,
        mut options: FindOptions,
    ) -> Result<(Vec<RawDocumentBuf>, bool), Failure> {
        options.limit.get_or_insert(FIND_LIMIT.try_into().unwrap_or(i64::MAX));
        let find = self
            .collection
            .find(filter)
            .with_options(options)
            .projection(fields)
            .max_time(SERVER_TIME)
            .comment(Bson::Document(self.comment.document().clone()))
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .read_concern(ReadConcern::majority());
        let read = async {
            let (mut cursor, mut documents, mut bytes) = (find.await?, Vec::new(), 0);
            while let Some(document) = cursor.try_next().await? {
                bytes += document.as_bytes().len();
                documents.push(document);
                if bytes > FIND_BYTES {
                    break;
                }
            }
            Ok((documents, bytes))
        };
        let (documents, bytes): (Vec<RawDocumentBuf>, usize) = self.bounded(read).await?;
        let is_full = documents.len() == FIND_LIMIT || bytes > FIND_BYTES;
        Ok((documents, is_full))
    }

    /// A call with a time limit of our own: the driver has no socket timeout.
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
        let failure = match tokio::time::timeout(CALL, call).await {
            Ok(Ok(value)) => {
                *self.away_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
                return Ok(value);
            }
            Ok(Err(error)) => classify(&error),
            Err(_) => {
                let text = format!("no reply within {} s", CALL.as_secs());
                Failure::new(FailureClass::UnknownOutcome, text)
            }
        };
        Err(self.unreachable(failure))
    }

    /// The failure with the outage's beginning, if it is one of the sink.
    pub fn unreachable(&self, mut failure: Failure) -> Failure {
        if failure.class.is_the_sinks() {
            let mut since = self.away_since.lock().unwrap_or_else(PoisonError::into_inner);
            let since = since.get_or_insert_with(Timestamp::now);
            failure.text = format!("MongoDB unreachable since {since:.0}: {}", failure.text);
        }
        failure
    }

    /// Writes all in one command, unordered, acknowledged by the majority and its journals.
    ///
    /// # Errors
    /// [`Failure`] where it concerns the whole batch; [`FailureClass::UnknownOutcome`] when it may have taken effect.
    pub async fn update(&self, updates: &[EntryUpdate<'_>]) -> Result<Written, Failure> {
        if self.is_read_only {
            return Err(Failure::new(FailureClass::Permanent, "a shadow relay writes no MongoDB"));
        }
        let mut statements = RawArrayBuf::new();
        for update in updates {
            let unusable =
                || Failure::new(FailureClass::Permanent, "the entry holds a value that no filter can repeat");
            statements.push(statement(update).ok_or_else(unusable)?);
        }
        let unnamed = |_| Failure::new(FailureClass::Permanent, "the comment of a command cannot be written");
        let comment = RawDocumentBuf::try_from(self.comment.document()).map_err(unnamed)?;
        let command = rawdoc! {
            "update": self.collection.name(),
            "comment": comment,
            "ordered": false,
            "maxTimeMS": i64::try_from(SERVER_TIME.as_millis()).unwrap_or(i64::MAX),
            "writeConcern": { "w": "majority", "j": true, "wtimeout": MAJORITY_TIME_MS },
            "updates": statements,
        };
        let reply = self.bounded(self.database.run_raw_command(command).into_future()).await?;
        if let Ok(error) = reply.get_document("writeConcernError") {
            let failure = Failure::new(FailureClass::UnknownOutcome, server_text(error));
            return Err(self.unreachable(failure));
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
                let failure = Failure::new(class_of_code(code_of(error)), server_text(error));
                refused.insert(index, self.unreachable(failure));
            }
        }
        let changed = reply.get_i32("nModified").unwrap_or(0);
        let all_changed = usize::try_from(changed) == Ok(updates.len() - refused.len().min(updates.len()));
        Ok(Written { all_changed, refused })
    }
}

/// A certificate that nobody verifies protects from nobody who could answer in the server's place.
fn refuse_unverified(url: &str) -> Result<(), String> {
    const UNVERIFIED: [&str; 3] = ["tlsInsecure", "tlsAllowInvalidCertificates", "tlsAllowInvalidHostnames"];
    let query = url.rsplit_once('?').map_or("", |(_, query)| query);
    let is_on = |name: &&&str| {
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .any(|(given, value)| given.eq_ignore_ascii_case(name) && value != "false")
    };
    match UNVERIFIED.iter().find(is_on) {
        Some(name) => Err(format!(
            "{name} is refused: anybody could pass for the server. Name the authority that signed its certificate: tls=true&tlsCAFile=FILE"
        )),
        None => Ok(()),
    }
}

/// What of a document matching, guard and fence read.
fn fields() -> Document {
    let mut fields = doc! { "aktenzeichen": 1, "firstName": 1, "lastName": 1 };
    for field in Identity::default().fields().map(|(name, _)| name).into_iter().chain(AS_READ) {
        fields.insert(format!("{LIST}.{field}"), 1);
    }
    fields
}

/// An `_id` that is a number, from its text in [`Client::client_id`].
fn numeric_id(text: &str) -> Option<Bson> {
    let (kind, digits) = text.split_once(':')?;
    match kind {
        "Int32" => digits.parse().ok().map(Bson::Int32),
        "Int64" => digits.parse().ok().map(Bson::Int64),
        _ => None,
    }
}

/// The filter for these documents.
fn one_of<'a>(found: impl Iterator<Item = &'a Found>) -> Result<Document, Failure> {
    let ids: RawArrayBuf = found.filter_map(Found::id).collect();
    let text = "a client document has an _id that cannot be read";
    let ids = Bson::try_from(RawBson::Array(ids)).map_err(|_| Failure::new(FailureClass::Permanent, text))?;
    Ok(doc! { "_id": { "$in": ids } })
}

fn too_much() -> Failure {
    let text = format!("more than {FIND_LIMIT} clients or {} MiB have the number or name", FIND_BYTES >> 20);
    Failure::new(FailureClass::Permanent, text)
}
