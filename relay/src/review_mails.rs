//! How many letters may ask a person to decide: ten single ones in an hour, and one digest. Owns the table `review_mails`.
//!
//! A letter's place is taken before it is sent and given back if that fails, under a lock, so that several relays together keep the limit.

use crate::outcome::{Failure, FailureClass};
use shared::{
    columns::typed,
    postgres::Connection,
    postgres::{AdvisoryLock, reason},
};
use std::time::Duration;

/// Single letters in an hour.
pub const SINGLES: usize = 10;
/// The hour.
const WINDOW: Duration = Duration::from_secs(3600);
/// What is too much for single letters waits for others of its kind: a digest of one would hold up those that come right after it.
const GATHER: Duration = Duration::from_secs(5 * 60);
/// A digest lists at most so many, some 200 KiB.
pub const DIGEST: usize = 200;

/// Serialises the takers of places; ends with the transaction. $1 = the lock's number.
const LOCK: &str = "select pg_advisory_xact_lock($1)";

/// Seconds since the letters of the last hour, at most a few. By `review_mails_sent`.
const STATE: &str = "
select count(*) filter (where not is_digest),
    extract(epoch from now() - max(sent_at) filter (where is_digest))::float8
from review_mails where sent_at > now() - $1::float8 * interval '1 second'";

/// Nobody asks for older ones.
const PRUNE: &str = "delete from review_mails where sent_at < now() - interval '1 day'";

/// The places of single letters, and of a digest if $2.
const TAKE: &str = "
insert into review_mails (is_digest)
select false from generate_series(1, $1::bigint) union all select true where $2::boolean
returning id, is_digest";

const GIVE_BACK: &str = "delete from review_mails where id = any($1)";

/// What is to become of the messages of a batch, in their order: single letters first, then the digest or a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// So many get a letter of their own.
    pub singles: usize,
    /// What becomes of the rest.
    pub rest: Rest,
}

/// What becomes of those that are too many for single letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// They are listed in a digest now.
    Digest,
    /// They wait for so long, then they are looked at again.
    Wait(Duration),
}

/// What is known of the last hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastHour {
    /// Single letters.
    pub singles: i64,
    /// How long ago the last digest was sent; None = not in this hour.
    pub digest: Option<Duration>,
}

/// Decides about `waiting` messages, of which some `have_waited` already. Pure.
#[must_use]
pub fn decide(waiting: usize, have_waited: bool, last_hour: LastHour) -> Plan {
    let room = SINGLES.saturating_sub(usize::try_from(last_hour.singles).unwrap_or(0));
    let rest = match last_hour.digest {
        Some(ago) if ago < WINDOW => Rest::Wait(WINDOW - ago),
        Some(_) | None if have_waited => Rest::Digest,
        Some(_) | None => Rest::Wait(GATHER),
    };
    Plan { singles: waiting.min(room), rest }
}

/// Places that were taken.
#[derive(Debug)]
pub struct Places {
    /// Decided so.
    pub plan: Plan,
    /// The rows of the single letters.
    pub singles: Vec<i64>,
    /// The row of the digest.
    pub digest: Option<i64>,
}

/// Takes places for `waiting` messages.
///
/// # Errors
/// Postgres failed, which says nothing about the messages; nothing was taken.
pub async fn take(connection: &mut Connection, waiting: usize, have_waited: bool) -> Result<Places, Failure> {
    try_take(connection, waiting, have_waited).await.map_err(|error| away(&error))
}

async fn try_take(
    connection: &mut Connection,
    waiting: usize,
    have_waited: bool,
) -> Result<Places, tokio_postgres::Error> {
    let transaction = connection.transaction().await?;
    transaction.execute_typed(LOCK, &typed(&[&AdvisoryLock::LetterPlaces.number()])).await?;
    transaction.batch_execute(PRUNE).await?;
    let row = transaction.query_typed_one(STATE, &typed(&[&WINDOW.as_secs_f64()])).await?;
    let digest = row.get::<_, Option<f64>>(1).map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
    let plan = decide(waiting, have_waited, LastHour { singles: row.get(0), digest });
    let wants_digest = plan.singles < waiting && plan.rest == Rest::Digest;
    let singles = i64::try_from(plan.singles).unwrap_or(0);
    let rows = transaction.query_typed(TAKE, &typed(&[&singles, &wants_digest])).await?;
    transaction.commit().await?;
    let (digests, singles): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.get(1));
    let id = |row: &tokio_postgres::Row| row.get(0);
    Ok(Places {
        plan,
        singles: singles.into_iter().map(id).collect(),
        digest: digests.into_iter().map(id).next(),
    })
}

/// Gives places back whose letters were not sent.
///
/// # Errors
/// Postgres failed: so many letters fewer go out in this hour.
pub async fn give_back(connection: &Connection, places: &[i64]) -> Result<(), Failure> {
    connection.execute_typed(GIVE_BACK, &typed(&[&places])).await.map(drop).map_err(|error| away(&error))
}

fn away(error: &tokio_postgres::Error) -> Failure {
    Failure::new(FailureClass::SinkDown, format!("Postgres: {}", reason(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn ten_in_an_hour_go_singly_and_the_rest_becomes_one_digest() {
        let quiet = LastHour { singles: 0, digest: None };
        let after = |singles, digest| LastHour { singles, digest };
        assert_eq!(decide(3, false, quiet), Plan { singles: 3, rest: Rest::Wait(GATHER) });
        assert_eq!(decide(14, false, quiet), Plan { singles: 10, rest: Rest::Wait(GATHER) });
        assert_eq!(decide(4, true, after(10, None)), Plan { singles: 0, rest: Rest::Digest });
        assert_eq!(
            decide(4, true, after(10, Some(MINUTE))),
            Plan { singles: 0, rest: Rest::Wait(59 * MINUTE) }
        );
        assert_eq!(decide(4, true, after(10, Some(60 * MINUTE))), Plan { singles: 0, rest: Rest::Digest });
        assert_eq!(
            decide(1, false, after(12, None)).singles,
            0,
            "more than ten, should it ever be so, leave no room"
        );
    }

    proptest! {
        /// Batches of any size at any time: no window of an hour has more than ten single letters or two digests, and whoever waits
        /// waits for an hour at most.
        #[test]
        fn no_hour_has_more_than_ten_letters_and_one_digest(batches in prop::collection::vec((0_u64..20, 0_usize..30, any::<bool>()), 1..60)) {
            let (mut now, mut singles, mut digests) = (Duration::ZERO, Vec::new(), Vec::new());
            for (minutes, waiting, have_waited) in batches {
                now += MINUTE * u32::try_from(minutes).unwrap();
                let recent = |sent: &Vec<Duration>| sent.iter().filter(|at| now - **at < WINDOW).count();
                let digest = digests.last().map(|at| now - *at).filter(|ago| *ago < WINDOW);
                let plan = decide(waiting, have_waited, LastHour { singles: i64::try_from(recent(&singles)).unwrap(), digest });
                singles.extend(std::iter::repeat_n(now, plan.singles));
                if plan.singles < waiting {
                    match plan.rest {
                        Rest::Digest => digests.push(now),
                        Rest::Wait(pause) => prop_assert!(pause <= WINDOW),
                    }
                }
                prop_assert!(recent(&singles) <= 10 && recent(&digests) <= 1);
                prop_assert!(plan.singles <= waiting);
            }
        }
    }
}
