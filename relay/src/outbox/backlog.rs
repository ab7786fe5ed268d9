//! What waits in the outbox, by operation: counts and the age of the oldest due message. Reads only.
//!
//! Finished rows stay for weeks and no index tells the waiting ones apart, so a look walks the primary key, as claims do. It begins
//! at a floor per operation, below which no message of it was waiting at an earlier look: what ends, or waits for its time, never
//! becomes one of the others again. Relays keep their floors in `relay_workers`, so that a command begins where they are.

use serde::Serialize;
use shared::message::{MessageId, Operation};
use shared::postgres::Connection;
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};
use tokio_postgres::{Row, types::Type};

/// Messages that do not wait for their time, among the ids $1 to $2: those whose operation is among $3, or is not, as $4 says. Walks
/// the primary key: some 50,000 finished rows in 20 ms where they are in memory. Locks nothing.
const HOT: &str = "
select operation, count(*), count(*) filter (where claimed_until > now()),
    count(*) filter (where available_at <= now() and (claimed_until is null or claimed_until <= now())),
    extract(epoch from now() - min(available_at)
        filter (where available_at <= now() and (claimed_until is null or claimed_until <= now())))::float8,
    min(id)
from outbox_messages
where id >= $1 and id < $2 and (operation = any($3)) = $4 and not deferred and processed_at is null and dead_at is null
group by operation";

/// Messages that wait for their time, through `outbox_messages_deferred`: as many rows as there are such messages, however long the
/// table is. A claimed one keeps its mark until the finish.
const DEFERRED: &str = "
select operation, count(*), count(*) filter (where claimed_until > now()),
    count(*) filter (where available_at <= now() and (claimed_until is null or claimed_until <= now())),
    extract(epoch from now() - min(available_at)
        filter (where available_at <= now() and (claimed_until is null or claimed_until <= now())))::float8,
    count(*) filter (where error_class = 'target_missing'),
    count(*) filter (where retry_count > 0 and error_class is distinct from 'target_missing')
from outbox_messages where deferred and processed_at is null and dead_at is null group by operation";

/// Through `outbox_messages_dead`: as many entries as there are dead letters.
const DEAD: &str =
    "select operation, count(*) from outbox_messages where dead_at is not null group by operation";

/// The ends of the primary key.
const ENDS: &str = "select coalesce(min(id), 0), coalesce(max(id), 0) from outbox_messages";

/// A walk begins this much below the floor: more ids than are given out while a healthy transaction is open.
const MARGIN: MessageId = 50_000;
/// Ids of one statement: some 100 ms where all of them are finished rows in memory, 300 ms where they are not.
const STRETCH: MessageId = 250_000;
/// Operations whose floors are further apart than this are walked apart, so that one whose messages wait for days does not cost the
/// others their counts.
const FAR: MessageId = 1_000_000;
/// A walk that begins so far below the end of the table ends after this many ids, once it has found something: each look would find
/// the same again.
const ENOUGH: MessageId = 2 * STRETCH;

/// What waits of one operation. A message may be in several of these counts.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Backlog {
    /// Neither done nor dead.
    pub waiting: i64,
    /// Of these, their time has come and nobody has them.
    pub due: i64,
    /// Of these, claimed by a relay.
    pub held: i64,
    /// Of these, parked: their client was missing at the last look.
    pub parked: i64,
    /// Of these, tried before, for another reason.
    pub retrying: i64,
    /// Waiting for a person.
    pub dead: i64,
    /// Since when the oldest due message is due, in seconds; None = none is.
    pub lag_seconds: Option<f64>,
    /// Whether the look ended before the end of the table: more may be waiting, due or held than is counted.
    pub at_least: bool,
}

impl Backlog {
    fn add(&mut self, row: &Row) {
        self.waiting += row.get::<_, i64>(1);
        self.held += row.get::<_, i64>(2);
        self.due += row.get::<_, i64>(3);
        let lag: Option<f64> = row.get(4);
        self.lag_seconds = match (self.lag_seconds, lag.map(|seconds| seconds.max(0.0))) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
    }
}

/// Where the next look begins, by operation, and for [`OTHERS`].
pub type Floors = BTreeMap<String, MessageId>;

/// The key of [`Floors`] for operations that this binary does not know.
pub const OTHERS: &str = "*"; // no operation can have this name

/// What one look found.
#[derive(Debug, Default)]
pub struct Look {
    /// By operation: all that this binary knows, and those that have messages.
    pub backlog: BTreeMap<String, Backlog>,
    /// Where the next look begins.
    pub floors: Floors,
}

/// Counts what waits. Ends after about `budget` of walking; the counts of what was not looked at are marked, and the next look goes
/// on where this one ended.
///
/// # Errors
/// The statements'.
pub async fn look(
    connection: &Connection,
    floors: &Floors,
    budget: Duration,
) -> Result<Look, tokio_postgres::Error> {
    let began = Instant::now();
    let mut backlog: BTreeMap<String, Backlog> = Operation::ALL
        .into_iter()
        .map(|operation| (operation.name().to_owned(), Backlog::default()))
        .collect();
    for row in connection.query_typed(DEFERRED, &[]).await? {
        let entry = backlog.entry(row.get(0)).or_default();
        entry.add(&row);
        entry.parked += row.get::<_, i64>(5);
        entry.retrying += row.get::<_, i64>(6);
    }
    for row in connection.query_typed(DEAD, &[]).await? {
        backlog.entry(row.get(0)).or_default().dead += row.get::<_, i64>(1);
    }
    let ends = connection.query_typed_one(ENDS, &[]).await?;
    let (lowest, highest): (MessageId, MessageId) = (ends.get(0), ends.get(1));
    let mut next = Floors::new();
    let walks = walks(floors, lowest, highest);
    for (index, walk) in walks.iter().enumerate() {
        // Each of the rest has its share of the time, and one stretch in any case.
        let left = budget.saturating_sub(began.elapsed());
        let share = left / u32::try_from(walks.len() - index).unwrap_or(1);
        walk.go(connection, highest, share, &mut backlog, &mut next).await?;
    }
    Ok(Look { backlog, floors: next })
}

/// Some operations from one id on.
#[derive(Debug, PartialEq, Eq)]
struct Walk {
    start: MessageId,
    /// The floors of the operations that are looked for, by name.
    floors: Floors,
}

/// Operations whose floors are near each other share a walk.
fn walks(floors: &Floors, lowest: MessageId, highest: MessageId) -> Vec<Walk> {
    let names = Operation::ALL.into_iter().map(Operation::name).chain([OTHERS]);
    let floor = |name: &str| floors.get(name).copied().unwrap_or(lowest).clamp(lowest, highest + 1);
    let mut sorted: Vec<(MessageId, &str)> = names.map(|name| (floor(name), name)).collect();
    sorted.sort_unstable();
    let mut walks: Vec<Walk> = Vec::new();
    for (floor, name) in sorted {
        match walks.last_mut().filter(|walk| floor <= walk.start.saturating_add(FAR)) {
            Some(walk) => {
                walk.floors.insert(name.to_owned(), floor);
            }
            None => walks.push(Walk {
                start: lowest.max(floor - MARGIN),
                floors: Floors::from([(name.to_owned(), floor)]),
            }),
        }
    }
    walks
}

impl Walk {
    async fn go(
        &self,
        connection: &Connection,
        highest: MessageId,
        share: Duration,
        backlog: &mut BTreeMap<String, Backlog>,
        next: &mut Floors,
    ) -> Result<(), tokio_postgres::Error> {
        let began = Instant::now();
        let (names, are_these) = self.names();
        let mut start = self.start;
        let mut first: HashMap<String, MessageId> = HashMap::new();
        while start <= highest {
            let end = start.saturating_add(STRETCH);
            let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] = [
                (&start, Type::INT8),
                (&end, Type::INT8),
                (&names, Type::TEXT_ARRAY),
                (&are_these, Type::BOOL),
            ];
            for row in connection.query_typed(HOT, &parameters).await? {
                let operation: String = row.get(0);
                let floor = if is_known(&operation) { operation.clone() } else { OTHERS.to_owned() };
                first.entry(floor).or_insert_with(|| row.get(5));
                backlog.entry(operation).or_default().add(&row);
            }
            start = end;
            let has_enough = !first.is_empty() && start - self.start >= ENOUGH && highest - self.start > FAR;
            if has_enough || began.elapsed() >= share {
                break;
            }
        }
        let is_over = start > highest;
        for name in self.floors.keys() {
            if !is_over {
                let cut = |(operation, _): &(&String, &mut Backlog)| match name.as_str() {
                    OTHERS => !is_known(operation),
                    name => name == *operation,
                };
                backlog.iter_mut().filter(cut).for_each(|(_, entry)| entry.at_least = true);
            }
            next.insert(name.clone(), first.get(name).copied().unwrap_or(start.min(highest + 1)));
        }
        Ok(())
    }

    /// The operations that the statement names, and whether it looks for these or for all others.
    fn names(&self) -> (Vec<&str>, bool) {
        let known = Operation::ALL.into_iter().map(Operation::name);
        if self.floors.contains_key(OTHERS) {
            (known.filter(|name| !self.floors.contains_key(*name)).collect(), false)
        } else {
            (self.floors.keys().map(String::as_str).collect(), true)
        }
    }
}

fn is_known(operation: &str) -> bool {
    Operation::ALL.into_iter().any(|known| known.name() == operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_near_each_other_share_a_walk_and_a_far_one_has_its_own() {
        let floors = Floors::from([
            ("email_fetch".into(), 1000),
            ("email_extraction".into(), 5_000_000),
            ("creditor_debt_update".into(), 4_900_000),
            ("debt_update_notification".into(), 5_000_001),
            ("review_notification".into(), 9_000_000),
            (OTHERS.into(), 5_000_001),
        ]);
        let walks = walks(&floors, 1, 5_000_000);
        assert_eq!(walks.iter().map(|walk| walk.start).collect::<Vec<_>>(), [1, 4_850_000]);
        assert_eq!(walks[0].names(), (vec!["email_fetch"], true));
        assert_eq!(walks[1].names(), (vec!["email_fetch"], false), "and all that nobody knows");
    }

    #[test]
    fn without_floors_everything_is_walked() {
        for highest in [70, 10_000_000] {
            let [walk] = &walks(&Floors::new(), 7, highest)[..] else { panic!("one walk") };
            assert_eq!((walk.start, walk.names()), (7, (vec![], false)));
        }
        assert_eq!(walks(&Floors::new(), 0, 0)[0].start, 0, "an empty table");
    }
}
