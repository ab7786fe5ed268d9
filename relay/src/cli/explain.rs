//! `relay explain`: its argument, and where it looks.

use super::{bad_configuration, connection};
use crate::{
    config::Settings,
    explain::{self, MongoDb},
    mongo::Clients,
};
use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use shared::message::EmailId;
use std::{fmt::Display, process::ExitCode};

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// A mail's id; or a client's case number or _id, alone or with a slash and a creditor entry's key: 17, 2024/118, 2024/118/cr_1. A
    /// number that could be a mail's id is a client's with a slash at its end
    #[arg(value_name = "EMAIL_ID|CLIENT[/CREDITOR]")]
    what: String,
}

impl Explain {
    pub(super) async fn run(&self, json: bool, settings: &Settings) -> anyhow::Result<ExitCode> {
        let url = match settings.database() {
            Ok(url) => url,
            Err(problem) => return Ok(bad_configuration(&[problem])),
        };
        let mongodb = mongodb(settings).await;
        let connection = connection(&url).await?;
        if let Ok(email_id) = self.what.trim().parse::<EmailId>() {
            let explanation = explain::explain(&connection, email_id).await?;
            let mut explanation = explanation.with_context(|| format!("there is no email {email_id}"))?;
            explanation.ask(&mongodb).await;
            return print(json, &explanation);
        }
        let explanation = explain::explain_entry(&connection, &mongodb, &self.what).await?;
        let unknown = || {
            format!("nothing is known of {}: it is no mail's id, no client and no creditor entry", self.what)
        };
        print(json, &explanation.with_context(unknown)?)
    }
}

fn print(json: bool, explanation: &(impl Serialize + Display)) -> anyhow::Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string(explanation)?);
    } else {
        print!("{explanation}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What is wrong with MongoDB's configuration is told in the explanation: Postgres' side is worth having without it.
async fn mongodb(settings: &Settings) -> MongoDb {
    match settings.mongodb() {
        Ok(None) => MongoDb::NotConfigured,
        Ok(Some((url, database))) => match Clients::new(url.expose(), &database, "relay-operator").await {
            Ok(clients) => MongoDb::Clients(clients),
            Err(problem) => MongoDb::Unusable(problem),
        },
        Err(problems) => MongoDb::Unusable(problems.join("; ")),
    }
}
