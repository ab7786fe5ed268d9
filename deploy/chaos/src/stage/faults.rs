//! What makes a fault of the schedule happen, and pass.

use super::Stage;
use crate::schedule::{Damage, Fault, MEMBERS, Member, Program};
use anyhow::Context as _;
use mongodb::bson::doc;
use std::time::Duration;
use testkit::{Pace, Wire};
use tokio::time::timeout;

/// What makes a fault pass.
#[derive(Debug, Clone, Copy)]
pub enum Mend {
    /// It passes by itself.
    Nothing,
    /// A program is started.
    Start(Program),
    /// A program ends by itself, and is started.
    StopAndStart(Program),
    /// A program goes on.
    Thaw(Program),
    /// Postgres is started.
    StartPostgres,
    /// Postgres goes on.
    ThawPostgres,
    /// There is room again.
    EmptyDisk,
    /// Members that do not run are started.
    StartMongods,
    /// A member goes on.
    ThawMongod(usize),
    /// A wire is whole again.
    PostgresWire(Program, Damage),
    /// A wire is whole again.
    MongodWire(usize, Damage),
    /// A relay's clock is right again.
    Clock(usize),
}

/// What came of that.
#[derive(Debug)]
pub enum Mended {
    /// It is to be tried again.
    NotYet,
    /// Nothing else.
    Well,
    /// What must not have come about.
    With(String),
}

impl Stage {
    /// The fault happens.
    pub async fn begin(&mut self, fault: Fault) -> anyhow::Result<Mend> {
        Ok(match fault {
            Fault::Kill(program) => {
                self.process(program)?.kill();
                Mend::Start(program)
            }
            Fault::Restart(program) => {
                self.process(program)?.stop();
                Mend::StopAndStart(program)
            }
            Fault::Freeze(program) => {
                self.process(program)?.signal("STOP");
                Mend::Thaw(program)
            }
            Fault::KillPostgres => {
                self.postgres.kill();
                Mend::StartPostgres
            }
            Fault::FreezePostgres => {
                self.postgres.freeze();
                Mend::ThawPostgres
            }
            Fault::TerminateConnections => {
                self.terminate_connections().await?;
                Mend::Nothing
            }
            Fault::DiskFull => {
                self.fill_disk().await?;
                Mend::EmptyDisk
            }
            Fault::KillMongod(member) => {
                let index = self.member(member).await;
                self.mongo.members.get_mut(index).context("a member")?.kill();
                Mend::StartMongods
            }
            Fault::FreezeMongod(member) => {
                let index = self.member(member).await;
                self.mongo.members.get(index).context("a member")?.freeze();
                Mend::ThawMongod(index)
            }
            Fault::KillMongods => {
                for member in &mut self.mongo.members {
                    member.kill();
                }
                Mend::StartMongods
            }
            Fault::StepDown => {
                self.step_down().await?;
                Mend::Nothing
            }
            Fault::WireToPostgres(program, damage) => {
                harm(self.wire(program)?, damage);
                Mend::PostgresWire(program, damage)
            }
            Fault::WireToMongod(member, damage) => {
                let index = self.member(member).await;
                harm(self.mongo.wires.get(index).context("a wire")?, damage);
                Mend::MongodWire(index, damage)
            }
            Fault::ClockJump(relay, seconds) => {
                self.set_clock(relay, seconds)?;
                Mend::Clock(relay)
            }
        })
    }

    /// The fault passes, unless it takes longer.
    pub async fn mend(&mut self, mend: Mend) -> anyhow::Result<Mended> {
        match mend {
            Mend::Nothing => {}
            Mend::Start(program) => self.process(program)?.start()?,
            Mend::StopAndStart(program) => {
                let process = self.process(program)?;
                let Some(stopped) = process.stopped() else { return Ok(Mended::NotYet) };
                process.start()?;
                return Ok(stopped.map_or_else(|error| Mended::With(format!("{error:#}")), |()| Mended::Well));
            }
            Mend::Thaw(program) => self.process(program)?.signal("CONT"),
            Mend::StartPostgres => self.postgres.start().await,
            Mend::ThawPostgres => self.postgres.thaw(),
            Mend::EmptyDisk => {
                self.postgres.disk().context("no disk to fill")?.empty();
                // a Postgres that could not write its log ends, now or in a moment; whoever has made room starts it
                if self.postgres.has_ended() {
                    self.postgres.start().await;
                }
                let connect = shared::postgres::connect(&self.postgres.url, "chaos");
                if !timeout(Duration::from_secs(1), connect).await.is_ok_and(|sql| sql.is_ok()) {
                    return Ok(Mended::NotYet);
                }
            }
            Mend::StartMongods => {
                for member in &mut self.mongo.members {
                    if member.has_ended() {
                        member.launch();
                    }
                }
            }
            Mend::ThawMongod(index) => self.mongo.members.get(index).context("a member")?.thaw(),
            Mend::PostgresWire(program, damage) => cure(self.wire(program)?, damage),
            Mend::MongodWire(index, damage) => cure(self.mongo.wires.get(index).context("a wire")?, damage),
            Mend::Clock(relay) => self.set_clock(relay, 0)?,
        }
        Ok(Mended::Well)
    }

    async fn terminate_connections(&self) -> anyhow::Result<()> {
        let sql = shared::postgres::connect(&self.postgres.url, "chaos").await?;
        let of_programs =
            "select pg_terminate_backend(pid) from pg_stat_activity where usename like 'testkit_%'";
        sql.batch_execute(of_programs).await?;
        Ok(())
    }

    async fn fill_disk(&self) -> anyhow::Result<()> {
        self.postgres.disk().context("no disk to fill")?.fill();
        // The log's next file has no room either: what Postgres cannot do without ends it.
        let switch = async {
            let sql = shared::postgres::connect(&self.postgres.url, "chaos").await.ok()?;
            sql.batch_execute("select pg_switch_wal()").await.ok()
        };
        let _ = timeout(Duration::from_secs(2), switch).await; // it may have ended by now
        Ok(())
    }

    async fn step_down(&self) -> anyhow::Result<()> {
        let command = doc! { "replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 1, "force": true };
        let primary = self.mongo.members.get(self.mongo.primary().await).context("a member")?;
        // its answer may be lost: it closes the connections of its clients
        let admin = primary.client().database("admin");
        let _ = timeout(Duration::from_secs(5), admin.run_command(command)).await;
        Ok(())
    }

    async fn member(&self, member: Member) -> usize {
        let primary = self.mongo.primary().await;
        match member {
            Member::Primary => primary,
            Member::Secondary => (primary + 1) % MEMBERS,
        }
    }
}

fn harm(wire: &Wire, damage: Damage) {
    match damage {
        Damage::Cut => wire.cut(),
        Damage::HalfOpen => wire.lose(),
        Damage::Stall => wire.freeze(),
        Damage::Slow => wire.pace(Some(Pace { bytes: 64 * 1024, pause: Duration::from_millis(300) })),
        Damage::Dribble => wire.pace(Some(Pace { bytes: 16, pause: Duration::from_millis(1) })),
    }
}

fn cure(wire: &Wire, damage: Damage) {
    match damage {
        Damage::Cut => wire.mend(),
        Damage::HalfOpen => {}
        Damage::Stall => wire.thaw(),
        Damage::Slow | Damage::Dribble => wire.pace(None),
    }
}
