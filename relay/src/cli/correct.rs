//! `relay correct`: its arguments and its words.

use super::{bad_configuration, connection, named, person, reason, whoever};
use crate::{
    config::Settings,
    correct::{self, Corrected, Right, State, Wish},
};
use clap::Args;
use shared::{message::EmailId, money::Amount};
use std::process::ExitCode;

/// Either the right amount or the one before the mail.
#[derive(Debug, Args)]
pub(super) struct Correct {
    /// The mail that brought the wrong amount
    email_id: EmailId,
    /// The right amount, such as 1234.56
    #[arg(long, conflicts_with = "revert", required_unless_present = "revert")]
    amount: Option<Amount>,
    /// Give back what was there before the mail
    #[arg(long)]
    revert: bool,
    /// Which entry, where the mail has written several, as CLIENT_ID/ENTRY_KEY
    #[arg(long, value_parser = named)]
    creditor: Option<String>,
    /// Who decides; kept with the decision
    #[arg(long, env = "USER", default_value_t = whoever(), value_parser = person)]
    by: String,
    /// Why; kept with the decision
    #[arg(long, default_value = "a person puts the amount right", value_parser = reason)]
    reason: String,
}

impl Correct {
    pub(super) async fn run(&self, json: bool, settings: &Settings) -> anyhow::Result<ExitCode> {
        let url = match settings.database() {
            Ok(url) => url,
            Err(problem) => return Ok(bad_configuration(&[problem])),
        };
        let right = self.amount.map_or(Right::Before, Right::Amount);
        let wish =
            Wish { right, entry: self.creditor.clone(), by: self.by.clone(), reason: self.reason.clone() };
        let corrected = correct::correct(&mut connection(&url).await?, self.email_id, &wish).await?;
        if json {
            println!("{}", serde_json::to_string(&corrected)?);
        } else {
            print_words(&corrected, &self.by);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print_words(corrected: &Corrected, by: &str) {
    let Corrected { email_id, client_id, entry_key, new_amount, .. } = corrected;
    let client = corrected.aktenzeichen.as_ref().unwrap_or(client_id);
    let message = corrected.message_id.map(|id| format!("message {id}")).unwrap_or_default();
    match corrected.state {
        State::Enqueued => {
            let old = corrected.old_amount.map_or_else(|| "nothing".into(), |amount| amount.to_string());
            println!(
                "email {email_id}: {old} -> {new_amount} EUR for creditor {entry_key} of client {client} by {by}, {message} will write it"
            );
        }
        State::Waiting => {
            println!("email {email_id}: {message} will write {new_amount} EUR already; nothing was changed");
        }
        State::Stored => {
            println!(
                "email {email_id}: {new_amount} EUR is what is stored for creditor {entry_key} of client {client}; nothing was changed"
            );
            println!(
                "note: that is what Postgres knows; `relay explain {email_id}` shows what MongoDB has now"
            );
        }
    }
}
