//! What the relay needs of MongoDB before it can work, and the commands that make it.

use super::{Clients, Failure};
use futures_util::TryStreamExt;
use mongodb::{
    bson::doc,
    options::{Collation, CollationStrength},
};

impl Clients {
    /// What the relay needs of the server and does not find, each with what to do; empty = all there.
    ///
    /// # Errors
    /// [`Failure`] of the sink.
    pub async fn missing_setup(&self) -> Result<Vec<String>, Failure> {
        let mut missing = Vec::new();
        let hello = self.bounded(self.database.run_command(doc! { "hello": 1 }).into_future()).await?;
        if !hello.contains_key("setName") && hello.get_str("msg").ok() != Some("isdbgrid") {
            missing.push("MongoDB: not a replica set, so no majority write: start mongod with --replSet and initiate it".into());
        }
        let keys = match self
            .bounded(async { self.collection.list_indexes().await?.try_collect::<Vec<_>>().await })
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
}

fn is_german(collation: &Collation) -> bool {
    collation.locale == "de" && matches!(collation.strength, Some(CollationStrength::Secondary))
}
