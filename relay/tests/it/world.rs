//! What the tests work in: a migrated database, a MongoDB database, and short words for messages and documents.

use jiff::Timestamp;
use mongodb::bson::{Document, doc};
use relay::{
    config::Config,
    context::Context,
    lane::{Summary, Trouble},
    write_guard::WriteGuard,
};
use serde_json::{Value, json};
use shared::{
    message::{EmailId, MessageId, Operation, Revision, Stamp},
    outbox::INSERT,
    postgres::Connection,
    process::Secret,
};
use std::{process::Stdio, str::FromStr, time::Duration};
use testkit::{Database, MongoDatabase, Wire, url_as};
use tokio_postgres::{Client, Row};
use tokio_util::sync::CancellationToken;

pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) mongo: MongoDatabase,
    pub(crate) sql: Client,
}

/// A debt update as ingest would have committed it.
pub(crate) struct Update {
    pub(crate) aktenzeichen: &'static str,
    pub(crate) creditor_email: &'static str,
    pub(crate) creditor_name: &'static str,
    pub(crate) amount: Option<String>,
    pub(crate) received_at: &'static str,
    pub(crate) confidence: Option<f64>,
}

impl Default for Update {
    fn default() -> Update {
        Update {
            aktenzeichen: "2024/118",
            creditor_email: "konto@turmhaus.example",
            creditor_name: "Turmhaus Kontor GmbH",
            amount: Some("1234.56".into()),
            received_at: "2026-02-17T09:14:22Z",
            confidence: Some(0.9),
        }
    }
}

impl Update {
    pub(crate) fn of(amount: &str, received_at: &'static str) -> Update {
        Update { amount: Some(amount.into()), received_at, ..Update::default() }
    }
}

impl World {
    pub(crate) async fn new() -> World {
        let database = Database::new().await;
        let mongo = MongoDatabase::new().await;
        let sql = database.client().await;
        World { database, mongo, sql }
    }

    /// Postgres as it is now. Everybody loses the connection.
    pub(crate) async fn backup(&mut self) -> Database {
        let backup = self.database.copy().await;
        self.sql = self.database.client().await;
        backup
    }

    /// Sets Postgres back to what it was then, under whoever is connected; MongoDB stays as it is.
    pub(crate) async fn restore(&mut self, backup: &Database) {
        self.database.restore(backup).await;
        self.sql = self.database.client().await;
    }

    pub(crate) fn config(&self, mongodb_url: &str) -> Config {
        let secret = |text: &str| Secret::from_str(text).unwrap();
        Config {
            database_url: secret(&self.relay_url()),
            database_direct_url: secret(&self.relay_url()),
            mongodb_url: secret(mongodb_url),
            mongodb_database: self.mongo.name.clone(),
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            guard: WriteGuard { hold_lower: true },
            extractor: None,
            pool_size: 5,
            retention: Duration::from_secs(30 * 86_400),
            mail_retention: Duration::from_secs(90 * 86_400),
            is_shadow: false,
            resend: None,
            mailer: None,
            console_tokens: None,
            reconcile: None,
            reconcile_rows_per_second: 100_000,
        }
    }

    pub(crate) async fn context(&self) -> Context {
        relay::relay::context(&self.config(&self.mongo.url)).await.unwrap()
    }

    /// A relay whose way to MongoDB is a wire.
    pub(crate) async fn context_over_wire(&self) -> (Context, Wire) {
        let (url, wire) = self.mongo_wire().await;
        (relay::relay::context(&self.config(&url)).await.unwrap(), wire)
    }

    pub(crate) async fn mongo_wire(&self) -> (String, Wire) {
        let wire = Wire::before(&self.mongo.url).await;
        // Else the driver asks the replica set for its members and goes past the wire.
        let base = self.mongo.url.split('?').next().unwrap().trim_end_matches('/');
        (format!("{}/?directConnection=true", wire.instead(base)), wire)
    }

    /// Works until nothing is due.
    pub(crate) async fn once(&self) -> Summary {
        let (summary, end) = self.try_once(&self.context().await).await;
        assert_eq!(end, Ok(()));
        summary
    }

    pub(crate) async fn try_once(&self, context: &Context) -> (Summary, Result<(), Trouble>) {
        relay::relay::run_once(context, &CancellationToken::new()).await
    }

    /// The program itself, on these servers, as the user that the command is meant for.
    pub(crate) fn program(&self, mongodb_url: &str, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_relay"));
        command
            .args(arguments)
            .env("DATABASE_URL", self.url_for(arguments))
            .env("MONGODB_URL", mongodb_url)
            .env("MONGODB_DATABASE", &self.mongo.name)
            .env("RELAY_ADMIN_LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Postgres as a running relay sees it.
    pub(crate) fn relay_url(&self) -> String {
        url_as("relay", &self.database.url)
    }

    /// A connection as the commands for persons have it.
    pub(crate) async fn operator(&self) -> Connection {
        let url = url_as("operator", &self.database.url);
        let pool = shared::postgres::pool(&url, "relay-operator", 1, Duration::from_secs(20)).unwrap();
        pool.get().await.unwrap()
    }

    /// What changes the past is the owner's: no role may.
    fn url_for(&self, arguments: &[&str]) -> String {
        match arguments.first() {
            Some(&("migrate" | "import-legacy" | "erase")) => self.database.url.clone(),
            Some(&"run") => self.relay_url(),
            _ => url_as("operator", &self.database.url),
        }
    }

    /// Lets a test give a mail other words than it came with.
    pub(crate) async fn may_rewrite_mails(&self) {
        self.run("alter table incoming_emails disable trigger incoming_emails_stay_as_they_came").await;
    }

    /// The client of the default [`Update`] with these entries.
    pub(crate) async fn client(&self, entries: Vec<Document>) {
        let document = doc! {
            "aktenzeichen": "2024_118", "firstName": "Eva", "lastName": "Adler", "portal_field": { "kept": true },
            "final_creditor_list": entries,
        };
        self.mongo.clients.insert_one(document).await.unwrap();
    }

    pub(crate) async fn entries(&self) -> Vec<Document> {
        let client = self.mongo.clients.find_one(doc! { "aktenzeichen": "2024_118" }).await.unwrap().unwrap();
        client
            .get_array("final_creditor_list")
            .unwrap()
            .iter()
            .map(|entry| entry.as_document().unwrap().clone())
            .collect()
    }

    pub(crate) async fn amount(&self, entry_id: &str) -> Option<f64> {
        let entries = self.entries().await;
        let entry = entries.iter().find(|entry| entry.get_str("id").ok() == Some(entry_id)).unwrap();
        entry.get_f64("current_debt_amount").ok()
    }

    /// Commits mail and message; the mail's id.
    pub(crate) async fn commit(&self, update: Update) -> EmailId {
        let received_at: Timestamp = update.received_at.parse().unwrap();
        let email_id = self.email(update.creditor_email, received_at).await;
        let stamp = Stamp::new(received_at, email_id, Revision::FIRST).unwrap();
        let mut payload = json!({
            "email_id": email_id, "client_aktenzeichen": Some(update.aktenzeichen).filter(|number| !number.is_empty()), "creditor_email": update.creditor_email,
            "creditor_name": update.creditor_name, "new_debt_amount": update.amount, "response_text": "Stand heute",
            "reference_numbers": ["TK-1"], "received_at": received_at, "stamp": stamp, "origin": "mail",
        });
        if let Some(confidence) = update.confidence {
            payload["extraction_confidence"] = json!(confidence);
        }
        self.message(Operation::CreditorDebtUpdate.name(), email_id, payload).await;
        email_id
    }

    pub(crate) async fn email(&self, from: &str, received_at: Timestamp) -> EmailId {
        let statement = "insert into incoming_emails (source, webhook_id, from_email, raw, received_at, fingerprint, processing_status)
            values ('api', gen_random_uuid()::text, $1, '', $2, sha256(''), 'extracted') returning id";
        self.sql.query_one(statement, &[&from, &received_at]).await.unwrap().get(0)
    }

    pub(crate) async fn message(&self, operation: &str, email_id: EmailId, payload: Value) -> MessageId {
        let statement = format!(
            "{INSERT} values ('test', $1::bigint::text, $2, $3, gen_random_uuid()::text, null) returning id"
        );
        self.sql.query_one(&statement, &[&email_id, &operation, &payload]).await.unwrap().get(0)
    }

    /// `state/outcome or class/retry_count` of the mail's only message.
    pub(crate) async fn state(&self, email_id: EmailId) -> String {
        let statement = "select case when processed_at is not null then 'done' when dead_at is not null then 'dead' else 'waiting' end,
            coalesce(outcome, error_class, ''), retry_count from outbox_messages where aggregate_id = $1::bigint::text";
        let row = self.sql.query_one(statement, &[&email_id]).await.unwrap();
        format!("{}/{}/{}", row.get::<_, &str>(0), row.get::<_, &str>(1), row.get::<_, i32>(2))
    }

    /// `processing/match/sync` of the mail.
    pub(crate) async fn shows(&self, email_id: EmailId) -> String {
        let statement = "select concat_ws('/', processing_status, coalesce(match_status, '-'), sync_status) from incoming_emails where id = $1";
        self.sql.query_one(statement, &[&email_id]).await.unwrap().get(0)
    }

    pub(crate) async fn row(&self, statement: &str) -> Row {
        self.sql.query_one(statement, &[]).await.unwrap()
    }

    /// Runs the program as the user "clerk": its exit code, standard output and standard error.
    pub(crate) async fn relay(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.program(&self.mongo.url, arguments).env("USER", "clerk").output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// What it prints with `--json`.
    pub(crate) async fn json_of(&self, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.relay(&[arguments, &["--json"]].concat()).await;
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    pub(crate) async fn run(&self, statement: &str) {
        self.sql.batch_execute(statement).await.unwrap();
    }
}

/// An entry of the default [`Update`]'s creditor.
pub(crate) fn turmhaus(id: &str) -> Document {
    doc! {
        "id": id, "sender_name": "Turmhaus Kontor GmbH", "sender_email": "konto@turmhaus.example", "glaeubiger_name": "Turmhaus Kontor GmbH",
        "reference_number": null, "claim_amount": 980, "contact_status": "email_sent", "portal_note": "theirs",
    }
}

/// An entry of somebody else.
pub(crate) fn seeblick(id: &str) -> Document {
    doc! { "id": id, "sender_name": "Seeblick Wohnen eG", "sender_email": "post@seeblick.example", "claim_amount": 300.5 }
}
