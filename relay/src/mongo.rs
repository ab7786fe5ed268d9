//! MongoDB: finds client documents and updates creditor entries in fenced batches. Nothing outside this module names the mongodb crate.
//!
//! What the driver (3.9) does not do for a raw command is done here: the write concern stands inside the command, the reply's
//! writeErrors and writeConcernError are read (the call itself returns Ok with them), and every call has a timeout of its own.

mod comment;
mod document;
mod failure;
mod find;
mod setup;

use crate::outcome::{Failure, FailureClass};
use comment::Comment;
use document::statement;
pub use document::{EntryUpdate, Found};
use failure::{class_of_code, classify, code_of, server_text, text_of};
pub use find::{Page, Place};
use jiff::Timestamp;
use mongodb::{
    Collection, Database,
    bson::{Bson, RawArrayBuf, RawDocumentBuf, doc, rawdoc},
    error::Error,
    options::{ClientOptions, ReadPreference, SelectionCriteria},
};
use shared::{message::MessageId, trace::TraceId};
use std::{
    collections::HashMap,
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
