//! `relay erase`: its arguments and its words.

use super::{bad_configuration, connection, named, person, whoever};
use crate::{
    config::Settings,
    erase::{self, Erased},
};
use clap::Args;
use shared::message::EmailId;
use std::process::ExitCode;

/// Without --apply it only says what would be removed. DATABASE_URL logs in as the owner of the tables: no role may. MongoDB, Zendesk, the databases of the replaced service and of a trial are not touched: they have their own owners.
#[derive(Debug, Args)]
pub(super) struct Erase {
    /// The client's case number; 2024/118 and 2024_118 are the same
    #[arg(long, value_parser = named)]
    client: String,
    /// Also these mails, which do not name the number: a person knows that they are about this client
    #[arg(long = "email", num_args = 1.., value_delimiter = ',', value_name = "EMAIL_ID")]
    emails: Vec<EmailId>,
    /// Remove; without it nothing is changed
    #[arg(long)]
    apply: bool,
    /// Who removes; kept with the receipt
    #[arg(long, env = "USER", default_value_t = whoever(), value_parser = person)]
    by: String,
}

impl Erase {
    pub(super) async fn run(&self, json: bool, settings: &Settings) -> anyhow::Result<ExitCode> {
        let url = match settings.database() {
            Ok(url) => url,
            Err(problem) => return Ok(bad_configuration(&[problem])),
        };
        let erased =
            erase::erase(&mut connection(&url).await?, &self.client, &self.emails, self.apply, &self.by)
                .await?;
        if json {
            println!("{}", serde_json::to_string(&erased)?);
        } else {
            print_words(&erased);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print_words(erased: &Erased) {
    match (erased.dry_run, erased.receipt_id) {
        (true, _) => println!("client {}: would be removed from Postgres", erased.client),
        (false, Some(id)) => println!(
            "receipt {id}: data of client {} removed from Postgres, {:.0}, by {}",
            erased.client, erased.at, erased.by
        ),
        (false, None) => println!("client {}: there is nothing about this client in Postgres", erased.client),
    }
    let counts = [
        (erased.emails as u64, "emails: addresses, texts, what was read in them"),
        (
            erased.shared_emails as u64,
            "emails that are about others too: their texts, and what is about this client",
        ),
        (erased.messages, "messages"),
        (erased.ledger_rows, "rows of the ledger"),
        (erased.decisions, "decisions: amounts, reasons, candidates"),
        (erased.acts, "acts of persons: what they were about"),
        (erased.reports, "reports of reconciliations: findings"),
    ];
    for (count, what) in counts {
        println!("  {count:>6}  {what}");
    }
    if !erased.undecided_emails.is_empty() {
        let ids: Vec<String> = erased.undecided_emails.iter().map(ToString::to_string).collect();
        println!(
            "NOT removed: emails {} may be about this client or another, or are not read yet: look (relay explain), and name those that are with --email",
            ids.join(", ")
        );
    }
    println!(
        "not touched: MongoDB, the ticket system, the databases of the replaced service and of a trial (RELAY_SHADOW), letters that were sent, backups"
    );
    if erased.dry_run {
        println!("nothing was changed: --apply removes");
    }
}
