//! `relay import-legacy`: its arguments and its words.

use super::{bad_configuration, connection, named, person, whoever};
use crate::{
    config::Settings,
    legacy::{self, Imported, Wish},
};
use anyhow::Context as _;
use clap::Args;
use shared::{
    postgres,
    process::{Secret, secret},
};
use std::{path::Path, process::ExitCode};

/// Without --apply it only says what would be imported. DATABASE_URL logs in as the owner of the tables. Stop the old service first; a repeat imports what is still missing. Exit 1 also where a mail was left out for a problem in its row.
#[derive(Debug, Args)]
pub(super) struct ImportLegacy {
    /// The old service's Postgres, as postgres://user:password@host:port/name; it is only read
    #[arg(long, env = "LEGACY_DATABASE_URL", hide_env_values = true)]
    from: Option<Secret>,
    /// File that holds LEGACY_DATABASE_URL
    #[arg(long, env = "LEGACY_DATABASE_URL_FILE")]
    from_file: Option<String>,
    /// Import; without it nothing is changed
    #[arg(long)]
    apply: bool,
    /// Only the mails of this kanzlei_id, where the old database has several
    #[arg(long, value_parser = named)]
    kanzlei: Option<String>,
    /// Who imports; kept with the import
    #[arg(long, env = "USER", default_value_t = whoever(), value_parser = person)]
    by: String,
}

impl ImportLegacy {
    pub(super) async fn run(&self, json: bool, settings: &Settings) -> anyhow::Result<ExitCode> {
        let (ours, old) = match (settings.database(), self.old_database()) {
            (Ok(ours), Ok(old)) => (ours, old),
            (ours, old) => {
                let problems: Vec<String> = [ours.err(), old.err()].into_iter().flatten().collect();
                return Ok(bad_configuration(&problems));
            }
        };
        let mut connection = connection(&ours).await?;
        postgres::check_schema(&connection).await.map_err(anyhow::Error::msg)?;
        let old = postgres::connect(old.expose(), "relay-import").await;
        let mut old = old.context("LEGACY_DATABASE_URL")?;
        let wish = Wish { kanzlei: self.kanzlei.clone(), apply: self.apply, by: self.by.clone() };
        let imported = legacy::import(&mut connection, &mut old, &wish).await?;
        if json {
            println!("{}", serde_json::to_string(&imported)?);
        } else {
            print_words(&imported);
        }
        Ok(if imported.left_out_emails == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn old_database(&self) -> Result<Secret, String> {
        let name = "LEGACY_DATABASE_URL";
        let url = secret(name, self.from.as_ref(), self.from_file.as_deref().map(Path::new))?;
        let url = url.ok_or_else(|| format!("{name} is not set (nor {name}_FILE)"))?;
        postgres::check_url(url.expose()).map_err(|error| format!("{name}: {error}"))?;
        Ok(url)
    }
}

fn print_words(imported: &Imported) {
    let Imported { emails, known, .. } = imported;
    if let Some(at) = imported.newest_change {
        println!("the old database was last changed at {at:.0}; is the old service stopped?");
    }
    let word = if imported.dry_run { "would be imported" } else { "imported" };
    println!("{emails} emails, {known} of them here already, {} {word}:", imported.imported);
    let undecided = format!("settled, {} of them left undecided by the old service", imported.undecided);
    let kinds = [
        (imported.settled, undecided.as_str()),
        (imported.marks, "written; a message marks the entry, if it still has that amount"),
        (imported.updates, "unfinished; their debt update goes on"),
        (imported.held_updates, "unfinished; their debt update goes to a person: relay review list"),
        (imported.extractions, "unread; they are read again"),
        (imported.held_extractions, "unread; they are read again, and what is found goes to a person"),
    ];
    for (count, what) in kinds {
        println!("  {count:>8}  {what}");
    }
    let (keys, new, known) = (imported.keys, imported.imported_keys, imported.known_keys);
    println!("{keys} keys that have not expired: {new} {word}, {known} here already");
    println!("{} rows left out, {} of them emails", imported.left_out, imported.left_out_emails);
    for problem in &imported.problems {
        println!("  {} {}: {}", problem.table, problem.id, problem.reason);
    }
    if imported.dry_run {
        println!("nothing was changed: --apply imports");
    }
}
