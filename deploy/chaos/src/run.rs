//! One run from start to verdict, and what it prints.

use crate::{
    backlog::Watch,
    checker::{Breach, Breaches, check},
    delivery::MOST,
    evidence,
    report::{counted, faults, figures, tell},
    schedule::{Fault, Frame, Planned, part, schedule},
    senders::{Clients, Senders},
    soak::Samples,
    stage::{Mend, Mended, Stage},
};
use anyhow::{Context as _, ensure};
use clap::Parser;
use jiff::Timestamp;
use serde_json::json;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use testkit::report::{joined, print, rounded, say};
use tokio::time::sleep;

/// Clients with five entries each.
const CLIENTS: usize = 200;
/// The longer lease of the two lanes, and what the promise adds to it.
const SETTLES: Duration = Duration::from_secs(30 + 30);
/// How a result tells its times.
const SECONDS: &str = "%Y-%m-%dT%H:%M:%SZ";
const SAMPLES_PER_MINUTE: u32 = 6;
const SUPERVISE_EVERY: Duration = Duration::from_millis(100);

/// Real ingests, relays, Postgres and MongoDB under load and seeded faults, checked at the end. Results are JSON lines on standard
/// output. Exit code 0: nothing was wrong; 1: something was, or the run could not be carried out
#[derive(Debug, Clone, Parser)]
#[command(name = "deploy/dev chaos")]
pub struct Arguments {
    /// How long load and faults go on
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=240))]
    pub minutes: u32,
    /// What all chance comes from: deliveries, order, faults and their times
    #[arg(long)]
    pub seed: u64,
    /// Deliveries a second
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub rate: u32,
    /// Seconds between two faults, on average; 0 = no faults at all
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=600))]
    pub every: u32,
    /// The first ingest and the first relay are never ended or stopped; their memory and open files and the sizes of the tables are
    /// printed, and from half an hour on they must not grow
    #[arg(long)]
    pub soak: bool,
    /// Where the programs' logs go
    #[arg(long, env = "CHAOS_LOGS", default_value = "chaos-logs")]
    pub logs: PathBuf,
}

/// Carries it out. True if nothing was wrong.
pub async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let began = Timestamp::now();
    let most = u64::from(arguments.rate) * u64::from(arguments.minutes) * 60;
    ensure!(
        most < MOST,
        "{most} deliveries are more than the {MOST} that have amounts of their own: fewer minutes or a lower rate"
    );
    say("starting Postgres, three mongods, two ingests and three relays");
    let mut stage =
        Stage::new(arguments.minutes, CLIENTS, arguments.logs.join(arguments.seed.to_string())).await?;
    let since = stage.cluster_time().await?;
    let frame = frame(arguments, &stage);
    let planned = if arguments.every == 0 { Vec::new() } else { schedule(arguments.seed, frame) };
    say(&format!("{} faults, {} deliveries a second", planned.len(), arguments.rate));
    let entries = CLIENTS * crate::stock::CREDITORS;
    let senders = Senders::start(arguments.seed, arguments.rate, entries, stage.addresses.clone())?;
    let watch = Watch::start(stage.postgres.url.clone());
    let clients = senders.clients();
    let (soaks, samples) = (arguments.soak, Samples::default());
    let mut play = Play { watch, struck: Vec::new(), clients, breaches: Vec::new(), soaks, samples };
    play.strike(&mut stage, &planned, frame.length).await?;

    say("the load ends");
    let load_ended = Instant::now(); // and the last fault has passed
    let ending = tokio::spawn(senders.stop());
    while !ending.is_finished() {
        play.look_after(&mut stage)?;
        sleep(SUPERVISE_EVERY).await;
    }
    let account = ending.await.context("the clients")?;
    let is_settled = play.watch.settles_within(SETTLES.saturating_sub(load_ended.elapsed())).await;
    let settled = load_ended.elapsed();
    say(&format!(
        "{} after {:.1} s",
        if is_settled { "settled" } else { "not settled" },
        settled.as_secs_f64()
    ));
    let Play { watch, struck, mut breaches, samples, .. } = play;
    breaches.extend(account.breaches);
    let evidence = evidence::gather(&stage, account.sent, since).await?;
    breaches.extend(check(&evidence));
    if arguments.soak {
        breaches.extend(samples.growth(arguments.minutes, SAMPLES_PER_MINUTE));
    }
    tell(&breaches);
    let soaked = if arguments.soak { samples.figures() } else { json!({}) };
    let head = json!({
        "chaos": "result", "seed": arguments.seed, "minutes": arguments.minutes, "rate": arguments.rate,
        "every_seconds": arguments.every, "soak": arguments.soak, "start": began.strftime(SECONDS).to_string(),
        "end": Timestamp::now().strftime(SECONDS).to_string(), "commit": std::env::var("CHAOS_COMMIT").unwrap_or_default(),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" }, "requests": account.requests,
        "refused_or_lost": account.refused, "settled": is_settled, "settled_seconds": rounded(settled.as_secs_f64()),
        "has_disk": frame.has_disk, "has_clock": frame.has_clock,
    });
    print(&joined([
        head,
        figures(&evidence),
        faults(&struck, &watch.recoveries()),
        soaked,
        counted(&breaches),
    ]))?;
    Ok(breaches.is_empty() && is_settled)
}

/// What this machine allows.
fn frame(arguments: &Arguments, stage: &Stage) -> Frame {
    let (has_disk, has_clock) = (stage.postgres.disk().is_some(), stage.has_clock());
    for (what, is_there) in
        [("disk_full (only root may mount a disk for it)", has_disk), ("clock_jump (no faketime)", has_clock)]
    {
        if !is_there {
            say(&format!("not available here: {what}"));
        }
    }
    let every = Duration::from_secs(arguments.every.into());
    let length = Duration::from_secs(u64::from(arguments.minutes) * 60);
    Frame { length, every, spares_first: arguments.soak, has_disk, has_clock }
}

/// The run while it goes on.
struct Play {
    watch: Watch,
    struck: Vec<Fault>,
    clients: Arc<Clients>,
    breaches: Breaches,
    soaks: bool,
    samples: Samples,
}

impl Play {
    /// Lets the faults come and pass at their times.
    async fn strike(
        &mut self,
        stage: &mut Stage,
        planned: &[Planned],
        length: Duration,
    ) -> anyhow::Result<()> {
        let (started, mut coming) = (Instant::now(), planned.iter().copied().peekable());
        let mut active: Vec<(Duration, Fault, Mend)> = Vec::new();
        let mut sampled = Instant::now();
        while started.elapsed() < length || !active.is_empty() {
            let now = started.elapsed();
            if let Some(index) = active.iter().position(|(until, ..)| *until <= now) {
                let (_, fault, mend) = active.remove(index);
                match stage.mend(mend).await? {
                    Mended::NotYet => {
                        active.push((now + SUPERVISE_EVERY, fault, mend));
                        continue;
                    }
                    Mended::Well => {}
                    Mended::With(breach) => self.breaches.push((Breach::Ended, breach)),
                }
                self.watch.measure(fault.name(), self.clients.clone());
            } else if let Some(next) = coming.next_if(|next| next.at <= now) {
                if active.iter().any(|(_, fault, _)| part(*fault) == part(next.fault)) {
                    say(&format!("{:?} is left out: the one before took longer than planned", next.fault));
                    continue;
                }
                say(&format!(
                    "{:6.1} s  {:?} for {:.1} s",
                    now.as_secs_f64(),
                    next.fault,
                    next.lasts.as_secs_f64()
                ));
                active.push((now + next.lasts, next.fault, stage.begin(next.fault).await?));
                self.struck.push(next.fault);
            } else {
                self.look_after(stage)?;
                sleep(Duration::from_millis(20)).await;
            }
            if sampled.elapsed() > Duration::from_secs(60) / SAMPLES_PER_MINUTE {
                sampled = Instant::now();
                self.sample(stage, started.elapsed()).await?;
            }
        }
        Ok(())
    }

    fn look_after(&mut self, stage: &mut Stage) -> anyhow::Result<()> {
        self.breaches.extend(stage.supervise()?.into_iter().map(|ended| (Breach::Ended, ended)));
        Ok(())
    }

    async fn sample(&mut self, stage: &Stage, at: Duration) -> anyhow::Result<()> {
        let samples = if self.soaks { self.samples.take(stage).await } else { json!({}) };
        let line = json!({ "chaos": "sample", "at_seconds": rounded(at.as_secs_f64()), "requests": self.clients.requests(),
            "backlog": self.watch.length() });
        print(&joined([line, samples]))
    }
}
