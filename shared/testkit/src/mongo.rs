//! One MongoDB database per test.

use crate::{block_on_other_thread, server_url, unique_name};
use mongodb::{
    Client, Collection, IndexModel, bson::Document, bson::doc, options::Collation, options::IndexOptions,
};

/// A fresh database with the collection `clients` and the indexes that the portal's operators make; dropped with this value.
#[derive(Debug)]
pub struct MongoDatabase {
    /// How to connect to the server.
    pub url: String,
    /// The database's name.
    pub name: String,
    /// The collection `clients`.
    pub clients: Collection<Document>,
    /// A database of a server that ends with the test goes with it.
    is_dropped: bool,
}

impl MongoDatabase {
    /// A database with an empty, indexed collection `clients`.
    pub async fn new() -> MongoDatabase {
        let mut database = MongoDatabase::at(&server_url("MONGODB_URL")).await;
        database.is_dropped = true;
        database
    }

    /// The same on a server of the test's own.
    pub async fn at(url: &str) -> MongoDatabase {
        let (url, name) = (url.to_owned(), unique_name());
        let client = Client::with_uri_str(&url).await.expect("the URL of the MongoDB is usable");
        let clients = client.database(&name).collection("clients");
        let german = Collation::builder()
            .locale("de")
            .strength(mongodb::options::CollationStrength::Secondary)
            .build();
        let by_name = IndexOptions::builder().collation(german).build();
        let indexes = [
            IndexModel::builder().keys(doc! { "aktenzeichen": 1 }).build(),
            IndexModel::builder().keys(doc! { "lastName": 1, "firstName": 1 }).options(by_name).build(),
        ];
        clients.create_indexes(indexes).await.expect("the test's MongoDB answers");
        MongoDatabase { url, name, clients, is_dropped: false }
    }
}

impl Drop for MongoDatabase {
    fn drop(&mut self) {
        if !self.is_dropped {
            return;
        }
        let (url, name) = (self.url.clone(), self.name.clone());
        block_on_other_thread(async move {
            if let Ok(client) = Client::with_uri_str(&url).await {
                let _ = client.database(&name).drop().await;
            }
        });
    }
}
