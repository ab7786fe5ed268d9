//! Where a run takes place: a Postgres and a replica set of its own, wires to both, two ingests and three relays.

mod faults;

pub use faults::{Mend, Mended};

use crate::{
    programs::Process,
    schedule::{INGESTS, MEMBERS, Program, RELAYS},
    stock,
};
use anyhow::{Context as _, ensure};
use mongodb::{
    Collection,
    bson::{Document, Timestamp as ClusterTime, doc},
    options::ReadConcern,
};
use std::{
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::PathBuf,
};
use testkit::{PostgresServer, ReplicaSet, Wire, free_port, url_as};

/// The MongoDB database of a run.
const DATABASE: &str = "chaos";
/// Of the debt updates.
pub const TOKEN: &str = "chaos-token-for-this-machine-only";
/// Of the webhooks.
pub const SECRET: &str = "chaos-secret-for-this-machine-only";
/// What MongoDB remembers of its writes, in MiB for a minute: 100 updates a second are less than a third of it.
const OPLOG_MIB: u32 = 10;
/// Disk for Postgres, in MiB: at first, and for a minute of load.
const DISK_MIB: (u32, u32) = (700, 150);

/// All of it; everything ends with this value.
#[derive(Debug)]
pub struct Stage {
    /// First: the programs end before the servers.
    processes: Vec<Process>,
    wires: Vec<(Program, Wire)>,
    /// Postgres.
    pub postgres: PostgresServer,
    /// MongoDB.
    pub mongo: ReplicaSet,
    /// Where each ingest listens.
    pub addresses: Vec<String>,
    folder: PathBuf,
    faketime: Option<String>,
}

impl Stage {
    /// Starts everything, with documents for so many clients. Logs go to `folder`.
    pub async fn new(minutes: u32, clients: usize, folder: PathBuf) -> anyhow::Result<Stage> {
        if folder.exists() {
            fs::remove_dir_all(&folder)?; // of an earlier run of this seed
        }
        fs::create_dir_all(&folder)?;
        let settings = [
            "max_wal_size=128MB",
            "min_wal_size=64MB",
            "wal_recycle=off",
            "shared_buffers=128MB",
            "log_checkpoints=off",
        ];
        let postgres = PostgresServer::with(&settings, DISK_MIB.0 + DISK_MIB.1 * minutes).await;
        let mongo = ReplicaSet::behind_wires(MEMBERS, OPLOG_MIB * minutes.max(10)).await;
        let faketime = env::var("FAKETIME_LIB").ok().filter(|path| !path.is_empty());
        let mut stage = Stage {
            processes: Vec::new(),
            wires: Vec::new(),
            postgres,
            mongo,
            addresses: Vec::new(),
            folder,
            faketime,
        };
        stage.prepare(clients).await?;
        for program in (0..INGESTS).map(Program::Ingest).chain((0..RELAYS).map(Program::Relay)) {
            stage.add(program).await?;
        }
        Ok(stage)
    }

    async fn prepare(&self, clients: usize) -> anyhow::Result<()> {
        let collection = self.clients().await?;
        let documents: Vec<Document> = (0..clients).map(stock::document).collect();
        collection.insert_many(documents).await?;
        let german = doc! { "locale": "de", "strength": 2 };
        let indexes = doc! { "createIndexes": "clients", "indexes": [
            { "key": { "aktenzeichen": 1 }, "name": "aktenzeichen" },
            { "key": { "lastName": 1, "firstName": 1 }, "name": "names", "collation": german },
        ] };
        let primary = self.mongo.members.get(self.mongo.primary().await).context("a primary")?;
        primary.client().database(DATABASE).run_command(indexes).await?;
        Ok(())
    }

    async fn add(&mut self, program: Program) -> anyhow::Result<()> {
        let wire = Wire::before(&self.postgres.url).await;
        let port = free_port();
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut environment = vec![variable("LOG_FORMAT", "text")];
        let (role, binary) = match program {
            Program::Ingest(_) => {
                let address = format!("127.0.0.1:{port}");
                environment.extend([
                    variable("INGEST_LISTEN", &address),
                    variable("INGEST_ADMIN_LISTEN", "127.0.0.1:0"),
                    variable("ZENDESK_WEBHOOK_SECRET", SECRET),
                    variable("API_TOKENS", TOKEN),
                ]);
                self.addresses.push(address);
                ("ingest", "INGEST_PROGRAM")
            }
            Program::Relay(index) => {
                environment.extend([
                    variable("RELAY_ADMIN_LISTEN", &format!("127.0.0.1:{port}")),
                    variable("MONGODB_URL", &self.mongo.url),
                    variable("MONGODB_DATABASE", DATABASE),
                    variable("EXTRACTOR", "rules"),
                ]);
                if let Some(library) = &self.faketime {
                    self.set_clock(index, 0)?;
                    environment.extend([
                        variable("LD_PRELOAD", library),
                        variable("FAKETIME_TIMESTAMP_FILE", &self.clock(index).display().to_string()),
                        variable("FAKETIME_CACHE_DURATION", "1"),
                        variable("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                    ]);
                }
                ("relay", "RELAY_PROGRAM")
            }
        };
        environment.push(variable("DATABASE_URL", &url_as(role, &wire.instead(&self.postgres.url))));
        let executable =
            env::var_os(binary).with_context(|| format!("{binary} is not set: run deploy/dev chaos"))?;
        let mut process = Process::new(program, executable.into(), environment, &self.folder);
        process.start()?;
        self.wires.push((program, wire));
        self.processes.push(process);
        Ok(())
    }

    /// Whether relays have a clock that can be set.
    #[must_use]
    pub fn has_clock(&self) -> bool {
        self.faketime.is_some()
    }

    /// The documents, past the wires: as they are on the primary.
    pub async fn clients(&self) -> anyhow::Result<Collection<Document>> {
        let primary = self.mongo.members.get(self.mongo.primary().await).context("a primary")?;
        let options =
            mongodb::options::CollectionOptions::builder().read_concern(ReadConcern::majority()).build();
        Ok(primary.client().database(DATABASE).collection_with_options("clients", options))
    }

    /// MongoDB's clock.
    pub async fn cluster_time(&self) -> anyhow::Result<ClusterTime> {
        let primary = self.mongo.members.get(self.mongo.primary().await).context("a primary")?;
        let hello = primary.admin(doc! { "hello": 1 }).await;
        Ok(hello.get_document("$clusterTime")?.get_timestamp("clusterTime")?)
    }

    /// Starts again what has ended by itself, and says what that was.
    pub fn supervise(&mut self) -> anyhow::Result<Vec<String>> {
        let mut ended = Vec::new();
        for process in &mut self.processes {
            if let Some(status) = process.ended() {
                ended.push(format!("{:?} ended by itself: {status}", process.program));
                process.start()?;
            }
        }
        Ok(ended)
    }

    /// Memory in MiB and open files of the first of each program.
    #[must_use]
    pub fn first_ones(&self) -> Vec<(&'static str, f64, usize)> {
        let first = |process: &&Process| matches!(process.program, Program::Ingest(0) | Program::Relay(0));
        let named = |process: &Process| {
            let name = if process.program == Program::Ingest(0) { "ingest" } else { "relay" };
            process.holds().map(|(mib, files)| (name, mib, files))
        };
        self.processes.iter().filter(first).filter_map(named).collect()
    }

    /// Lines of the programs' logs that must not be there: panics, and anything of a mail's text or of a person.
    pub fn strange_lines(&self) -> anyhow::Result<Vec<String>> {
        let mut strange = Vec::new();
        for process in &self.processes {
            for line in BufReader::new(File::open(&process.log)?).lines() {
                let line = line?;
                if line.contains("panicked at") || stock::WORDS.iter().any(|word| line.contains(word)) {
                    strange.push(format!("in the log of {:?}: {line}", process.program));
                }
            }
        }
        Ok(strange)
    }

    fn process(&mut self, program: Program) -> anyhow::Result<&mut Process> {
        self.processes.iter_mut().find(|process| process.program == program).context("a program of the run")
    }

    fn wire(&self, program: Program) -> anyhow::Result<&Wire> {
        self.wires
            .iter()
            .find(|(whose, _)| *whose == program)
            .map(|(_, wire)| wire)
            .context("a program of the run")
    }

    fn clock(&self, relay: usize) -> PathBuf {
        self.folder.join(format!("clock-{relay}"))
    }

    fn set_clock(&self, relay: usize, seconds: i32) -> anyhow::Result<()> {
        let (clock, new) = (self.clock(relay), self.folder.join(format!("clock-{relay}.new")));
        ensure!(seconds.abs() <= 86_400, "a day is far enough");
        fs::write(&new, format!("{seconds:+}"))?;
        // renamed, so that the relay never reads half of it
        fs::rename(new, clock)?;
        Ok(())
    }
}
