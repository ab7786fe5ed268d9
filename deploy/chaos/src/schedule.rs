//! Which fault strikes when, from the seed alone. Pure.
//!
//! Every kind of fault is drawn once, in random order, before any comes again. Faults overlap, but only where they strike
//! different parts: two at once on the same servers could leave nobody who knows what was acknowledged, which nothing survives.

use fastrand::Rng;
use std::{fmt, time::Duration};

/// Ingests and relays of a run.
pub const INGESTS: usize = 2;
/// At most 3: any may be away, and the others work.
pub const RELAYS: usize = 3;
/// Members of MongoDB's replica set.
pub const MEMBERS: usize = 3;

/// One of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// By its number.
    Ingest(usize),
    /// By its number.
    Relay(usize),
}

/// A member of the replica set; which one it is, shows when the fault begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// The one that takes writes.
    Primary,
    /// Another one.
    Secondary,
}

/// What can happen to a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Connections break, and new ones are refused.
    Cut,
    /// Open connections never carry anything again, and nobody is told.
    HalfOpen,
    /// Nothing passes for a while; then everything does.
    Stall,
    /// Each chunk takes 300 ms.
    Slow,
    /// 16 bytes in a millisecond.
    Dribble,
}

/// One kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a start later.
    Kill(Program),
    /// SIGTERM, as at an update, and a start later.
    Restart(Program),
    /// SIGSTOP, and SIGCONT later.
    Freeze(Program),
    /// SIGKILL for all of its processes, and a start later.
    KillPostgres,
    /// SIGSTOP for all of its processes.
    FreezePostgres,
    /// Every connection of the programs, by `pg_terminate_backend`.
    TerminateConnections,
    /// Not a byte is free where Postgres' data are.
    DiskFull,
    /// SIGKILL, and a start later.
    KillMongod(Member),
    /// SIGSTOP, and SIGCONT later.
    FreezeMongod(Member),
    /// SIGKILL for the whole set, and a start later.
    KillMongods,
    /// The primary hands over.
    StepDown,
    /// Between one program and Postgres.
    WireToPostgres(Program, Damage),
    /// Between one member of the set and everybody else.
    WireToMongod(Member, Damage),
    /// The clock of a relay's host is so many seconds ahead.
    ClockJump(usize, i32),
}

/// Faults of one part never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The ingests.
    Ingest,
    /// The relays.
    Relay,
    /// Postgres, and the wires to it.
    Postgres,
    /// The replica set, and the wires to it.
    Mongod,
}

/// One fault at its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// From the start of the run.
    pub at: Duration,
    /// From its beginning to its end.
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

/// What a schedule is made for.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// All faults have ended by then.
    pub length: Duration,
    /// Between two faults, on average.
    pub every: Duration,
    /// The first of each program is never ended, so that what it holds can be watched.
    pub spares_first: bool,
    /// Whether Postgres has a disk that can be filled.
    pub has_disk: bool,
    /// Whether a relay's clock can be set.
    pub has_clock: bool,
}

/// The faults of a seed.
#[must_use]
pub fn schedule(seed: u64, frame: Frame) -> Vec<Planned> {
    let mut random = Rng::with_seed(seed);
    let mut planned: Vec<Planned> = Vec::new();
    let mut bag: Vec<Fault> = Vec::new();
    let mut at = Duration::from_secs(2);
    loop {
        if bag.is_empty() {
            bag = faults(&mut random, frame);
            random.shuffle(&mut bag);
        }
        let is_free = |fault: &Fault| {
            let busy = planned.iter().any(|other| {
                part(other.fault) == part(*fault) && other.at + other.lasts + Duration::from_secs(1) > at
            });
            !busy
        };
        if let Some(index) = bag.iter().rposition(is_free) {
            let fault = bag.remove(index);
            let lasts = lasts(fault, &mut random);
            if at + lasts + Duration::from_secs(1) > frame.length {
                return planned;
            }
            planned.push(Planned { at, lasts, fault });
        }
        at += frame.every.mul_f64(0.2 + 1.6 * random.f64());
        if at > frame.length {
            return planned;
        }
    }
}

fn faults(random: &mut Rng, frame: Frame) -> Vec<Fault> {
    let from = usize::from(frame.spares_first);
    let mut ingest = || Program::Ingest(random.usize(from..INGESTS));
    let mut all = vec![Fault::Kill(ingest()), Fault::Restart(ingest()), Fault::Freeze(ingest())];
    let mut relay = || Program::Relay(random.usize(from..RELAYS));
    all.extend([Fault::Kill(relay()), Fault::Kill(relay()), Fault::Restart(relay())]);
    // the most telling one: it may stop between its look at a document and its write
    all.extend([Fault::Freeze(relay()), Fault::Freeze(relay()), Fault::Freeze(relay())]);
    all.extend([Fault::KillPostgres, Fault::FreezePostgres, Fault::TerminateConnections, Fault::KillMongods]);
    all.extend([Fault::KillMongod(Member::Primary), Fault::KillMongod(Member::Secondary)]);
    all.extend([Fault::FreezeMongod(Member::Primary), Fault::StepDown]);
    for damage in [Damage::Cut, Damage::HalfOpen, Damage::Stall, Damage::Slow, Damage::Dribble] {
        let program = match random.bool() {
            true => Program::Ingest(random.usize(..INGESTS)),
            false => Program::Relay(random.usize(..RELAYS)),
        };
        let member = if random.u8(..4) == 0 { Member::Secondary } else { Member::Primary };
        all.extend([Fault::WireToPostgres(program, damage), Fault::WireToMongod(member, damage)]);
    }
    if frame.has_disk {
        all.push(Fault::DiskFull);
    }
    if frame.has_clock {
        let seconds = random.choice([-86_400, -3_600, -30, 30, 3_600, 86_400]).unwrap_or(3_600);
        all.push(Fault::ClockJump(random.usize(..RELAYS), seconds));
    }
    all
}

fn lasts(fault: Fault, random: &mut Rng) -> Duration {
    let ms = match fault {
        // sometimes longer than a lease: it wakes up and holds messages that others have carried out meanwhile
        Fault::Freeze(Program::Relay(_)) if random.bool() => random.u64(16_000..22_000),
        Fault::Freeze(Program::Relay(_)) => random.u64(500..4_000),
        // a slow wire at once cured shows nothing
        Fault::WireToPostgres(..) | Fault::WireToMongod(..) | Fault::ClockJump(..) => {
            random.u64(2_000..9_000)
        }
        Fault::TerminateConnections | Fault::StepDown => 100,
        Fault::Kill(_)
        | Fault::Restart(_)
        | Fault::Freeze(Program::Ingest(_))
        | Fault::KillPostgres
        | Fault::FreezePostgres
        | Fault::DiskFull
        | Fault::KillMongod(_)
        | Fault::FreezeMongod(_)
        | Fault::KillMongods => random.u64(300..6_000),
    };
    Duration::from_millis(ms)
}

/// What a fault strikes.
#[must_use]
pub fn part(fault: Fault) -> Part {
    match fault {
        Fault::Kill(Program::Ingest(_))
        | Fault::Restart(Program::Ingest(_))
        | Fault::Freeze(Program::Ingest(_)) => Part::Ingest,
        Fault::Kill(Program::Relay(_))
        | Fault::Restart(Program::Relay(_))
        | Fault::Freeze(Program::Relay(_))
        | Fault::ClockJump(..) => Part::Relay,
        Fault::KillPostgres
        | Fault::FreezePostgres
        | Fault::TerminateConnections
        | Fault::DiskFull
        | Fault::WireToPostgres(..) => Part::Postgres,
        Fault::KillMongod(_)
        | Fault::FreezeMongod(_)
        | Fault::KillMongods
        | Fault::StepDown
        | Fault::WireToMongod(..) => Part::Mongod,
    }
}

impl Fault {
    /// Of its kind, for the counts.
    #[must_use]
    pub fn name(self) -> String {
        let program = |program: Program| match program {
            Program::Ingest(_) => "ingest",
            Program::Relay(_) => "relay",
        };
        match self {
            Fault::Kill(who) => format!("kill_{}", program(who)),
            Fault::Restart(who) => format!("restart_{}", program(who)),
            Fault::Freeze(who) => format!("freeze_{}", program(who)),
            Fault::KillPostgres => "kill_postgres".into(),
            Fault::FreezePostgres => "freeze_postgres".into(),
            Fault::TerminateConnections => "terminate_connections".into(),
            Fault::DiskFull => "disk_full".into(),
            Fault::KillMongod(_) => "kill_mongod".into(),
            Fault::FreezeMongod(_) => "freeze_mongod".into(),
            Fault::KillMongods => "kill_all_mongods".into(),
            Fault::StepDown => "step_down".into(),
            Fault::WireToPostgres(_, damage) => format!("postgres_wire_{damage}"),
            Fault::WireToMongod(_, damage) => format!("mongod_wire_{damage}"),
            Fault::ClockJump(..) => "clock_jump".into(),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Damage::Cut => "cut",
            Damage::HalfOpen => "half_open",
            Damage::Stall => "stall",
            Damage::Slow => "slow",
            Damage::Dribble => "dribble",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn frame(minutes: u64, spares_first: bool) -> Frame {
        Frame {
            length: Duration::from_secs(60 * minutes),
            every: Duration::from_secs(4),
            spares_first,
            has_disk: true,
            has_clock: true,
        }
    }

    #[test]
    fn a_seed_is_one_schedule_and_another_seed_another_one() {
        assert_eq!(schedule(7, frame(2, false)), schedule(7, frame(2, false)));
        assert_ne!(schedule(7, frame(2, false)), schedule(8, frame(2, false)));
    }

    #[test]
    fn faults_of_one_part_never_overlap_and_all_end_in_time() {
        for seed in 0..50 {
            let planned = schedule(seed, frame(10, false));
            for (index, fault) in planned.iter().enumerate() {
                assert!(fault.at + fault.lasts < frame(10, false).length);
                for later in
                    planned.iter().skip(index + 1).filter(|later| part(later.fault) == part(fault.fault))
                {
                    assert!(later.at > fault.at + fault.lasts, "{fault:?} {later:?}");
                }
            }
        }
    }

    #[test]
    fn ten_minutes_have_every_kind_of_fault_and_faults_that_overlap() {
        let planned = schedule(3, frame(10, false));
        let names: HashSet<String> = planned.iter().map(|planned| planned.fault.name()).collect();
        let mut random = Rng::with_seed(0);
        let all: HashSet<String> =
            faults(&mut random, frame(10, false)).iter().map(|fault| fault.name()).collect();
        assert_eq!(names, all);
        assert!(planned.windows(2).any(|pair| matches!(pair, [one, next] if next.at < one.at + one.lasts)));
    }

    #[test]
    fn a_program_that_is_spared_is_never_ended_or_stopped() {
        for planned in (0..50).flat_map(|seed| schedule(seed, frame(10, true))) {
            for first in [Program::Ingest(0), Program::Relay(0)] {
                let ends = [Fault::Kill(first), Fault::Restart(first), Fault::Freeze(first)];
                assert!(!ends.contains(&planned.fault), "{planned:?}");
            }
        }
    }
}
