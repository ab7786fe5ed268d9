//! `relay apply`: its input line by line, its receipts, its end.

use super::bad_configuration;
use crate::{
    apply::{self, Line, Receipt},
    config::Settings,
    mongo::Clients,
};
use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};

/// Bytes of a line: the longest update with every character escaped.
const LONGEST_LINE: u64 = 64 << 10;
/// When no line comes for so long, a round does not wait for it.
const LULL: Duration = Duration::from_millis(200);

/// Reads the body of `POST /v1/debt-updates`, one JSON object a line. Prints a receipt for each line. Exit code 1 if a line failed or is
/// malformed, or if MongoDB is away; an update that is held for a person, or whose client is missing, is no failure.
#[derive(Debug, Args)]
pub(super) struct Apply {
    /// A file with the updates [default: standard input]
    #[arg(long)]
    file: Option<PathBuf>,
    /// Say what would be done, each 500 lines by what MongoDB has now, and write nothing
    #[arg(long)]
    dry_run: bool,
}

impl Apply {
    pub(super) async fn run(&self, json: bool, settings: &Settings) -> anyhow::Result<ExitCode> {
        let apply = match self.prepared(settings).await {
            Ok(apply) => apply,
            Err(problems) => return Ok(bad_configuration(&problems)),
        };
        let mut lines = lines(self.file.as_deref())?;
        let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut has_failed = false;
        loop {
            let (part, broken) = next_round(&mut lines).await;
            if part.is_empty() && broken.is_none() {
                break;
            }
            let (receipts, stopped) = apply.round(part).await;
            for receipt in &receipts {
                *counts.entry(receipt.outcome).or_default() += 1;
                has_failed |= receipt.is_failure();
            }
            print(&receipts, json)?;
            if let Some(stopped) = stopped {
                return Err(stopped.into());
            }
            if let Some(error) = broken {
                return Err(error).context("the input cannot be read on; what was read before is done");
            }
        }
        if !json {
            let counts: Vec<String> =
                counts.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
            let words = if self.dry_run { "; nothing was written" } else { "" };
            println!("{}{words}", if counts.is_empty() { "no lines".into() } else { counts.join(", ") });
        }
        Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    async fn prepared(&self, settings: &Settings) -> Result<apply::Apply, Vec<String>> {
        let mongodb = settings.mongodb()?;
        let (url, database) =
            mongodb.ok_or_else(|| vec!["MONGODB_URL is not set (nor MONGODB_URL_FILE)".into()])?;
        let guard = settings.guard().map_err(|problem| vec![problem])?;
        if settings.is_shadow().map_err(|problem| vec![problem])? && !self.dry_run {
            return Err(vec!["RELAY_SHADOW: a shadow relay writes no MongoDB: use --dry-run".into()]);
        }
        let clients = Clients::new(url.expose(), &database, "relay-apply").await;
        let clients = clients.map_err(|problem| vec![format!("MONGODB_URL: {problem}")])?;
        Ok(apply::Apply { clients, guard, is_dry: self.dry_run, now: Timestamp::now() })
    }
}

/// As many lines as a round takes, or what there is when no more come for a while; and why there will be no more, if that is not the end
/// of the input. What was read before is still done.
async fn next_round(lines: &mut mpsc::Receiver<io::Result<Line>>) -> (Vec<Line>, Option<io::Error>) {
    let mut part = Vec::new();
    let mut next = lines.recv().await;
    loop {
        match next {
            Some(Ok(line)) => part.push(line),
            Some(Err(error)) => return (part, Some(error)),
            None => return (part, None),
        }
        if part.len() >= apply::LINES {
            return (part, None);
        }
        let Ok(read) = timeout(LULL, lines.recv()).await else { return (part, None) };
        next = read;
    }
}

/// The lines that say something, read by a thread of its own as fast as they are taken.
fn lines(file: Option<&Path>) -> anyhow::Result<mpsc::Receiver<io::Result<Line>>> {
    let reader: Box<dyn Read + Send> = match file {
        Some(file) => Box::new(File::open(file).with_context(|| format!("cannot open {}", file.display()))?),
        None => Box::new(io::stdin()),
    };
    let (sender, receiver) = mpsc::channel(apply::LINES);
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        for number in 1.. {
            let read = read_line(&mut reader).transpose();
            let Some(read) = read else { return };
            let line = read.map(|text| Line { number, text });
            let is_blank = matches!(&line, Ok(Line { text: Ok(text), .. }) if text.trim().is_empty());
            let is_last = line.is_err();
            // Nobody takes lines any more: the command has ended.
            if !is_blank && sender.blocking_send(line).is_err() || is_last {
                return;
            }
        }
    });
    Ok(receiver)
}

/// The next line, or what makes it no text; None at the end. Of a line that is too long the rest is passed over.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<Result<String, String>>> {
    let mut bytes = Vec::new();
    if reader.take(LONGEST_LINE + 1).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.len() as u64 > LONGEST_LINE && bytes.last() != Some(&b'\n') {
        reader.skip_until(b'\n')?;
        return Ok(Some(Err(format!("has more than {LONGEST_LINE} bytes"))));
    }
    Ok(Some(String::from_utf8(bytes).map_err(|_| "is not UTF-8".into())))
}

/// A receipt that nobody can read ends the command: what it does must not go unseen.
fn print(receipts: &[Receipt], json: bool) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    for receipt in receipts {
        if json {
            writeln!(output, "{}", serde_json::to_string(receipt)?)?;
        } else {
            writeln!(output, "{}", words(receipt))?;
        }
    }
    Ok(output.flush()?)
}

fn words(receipt: &Receipt) -> String {
    let Receipt { line, outcome, reason, client_id, entry_key, old_amount, new_amount, stamp, .. } = receipt;
    let mut words = format!("line {line}: {outcome}: {reason}");
    if let Some(client) = client_id {
        words.push_str(&format!("; client {client}"));
    }
    if let Some(entry) = entry_key {
        words.push_str(&format!(", creditor {entry}"));
    }
    if let (Some(new), Some(stamp)) = (new_amount, stamp) {
        let old = old_amount.map_or_else(|| "nothing".into(), |amount| amount.to_string());
        words.push_str(&format!("; {old} -> {new} EUR, stamp {stamp}"));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_or_no_text_does_not_hide_the_next() {
        let mut input = vec![b'x'; 200_000];
        input.extend(b"\n\xff\nlast");
        let mut reader = BufReader::new(input.as_slice());
        let mut next = || read_line(&mut reader).unwrap();
        assert!(next().unwrap().unwrap_err().contains("65536"));
        assert_eq!(next(), Some(Err("is not UTF-8".into())));
        assert_eq!(next(), Some(Ok("last".into())));
        assert_eq!(next(), None);
    }
}
