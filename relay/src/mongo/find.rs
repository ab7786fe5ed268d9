//! Reading client documents: by number, `_id` or name, page by page, and what entries carry after a write.

use super::{
    Clients, EntryUpdate, Found, SERVER_TIME,
    document::{AS_READ, LIST, MARK, read_client},
};
use crate::{
    client::{Client, Identity},
    outcome::{Failure, FailureClass},
};
use futures_util::TryStreamExt;
use mongodb::{
    bson::{Bson, Document, RawArrayBuf, RawBson, RawDocumentBuf, doc, oid::ObjectId},
    options::{
        Collation, CollationStrength, FindOptions, Hint, ReadConcern, ReadPreference, SelectionCriteria,
    },
};
use std::collections::{HashMap, HashSet};

/// Most documents of one find. A batch that means more is halved, since what a cut-off document holds is not known.
const FIND_LIMIT: usize = 5000;
/// Most bytes of one find, halved alike; more than the largest document of MongoDB has, so that one message can always be read.
const FIND_BYTES: usize = 32 << 20;
/// Names of one find: each is a branch of its `$or`, and a look into the index.
const NAMES_PER_FIND: usize = 100;

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

impl Clients {
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
