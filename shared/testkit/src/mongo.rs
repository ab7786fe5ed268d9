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
}

impl MongoDatabase {
    /// A database with an empty, indexed collection `clients`.
    pub async fn new() -> MongoDatabase {
        let (url, name) = (server_url("MONGODB_URL"), unique_name());
        let client = Client::with_uri_str(&url).await.expect("MONGODB_URL is usable");
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
        clients.create_indexes(indexes).await.expect("the MongoDB of MONGODB_URL answers");
        MongoDatabase { url, name, clients }
    }
}

impl Drop for MongoDatabase {
    fn drop(&mut self) {
        let (url, name) = (self.url.clone(), self.name.clone());
        block_on_other_thread(async move {
            if let Ok(client) = Client::with_uri_str(&url).await {
                let _ = client.database(&name).drop().await;
            }
        });
    }
}
