//! Where a lane's claims walk the primary key: pure, the ids of one walk after the other.
//!
//! Finished rows stay in the table for weeks, so claims begin at the low-water mark: what lies below it is finished, deferred or
//! held by somebody. A walk covers a bounded stretch of ids and the next one begins where it found nothing, so no single statement
//! grows with the table. Rows below the mark (a crashed worker's, another relay's returned ones, those of a transaction that
//! committed late) are found by sweeps, which go down from the mark in the same stretches, at a pace that costs little.

use shared::message::MessageId;
use std::time::{Duration, Instant};

/// Ids of one walk: some 20 ms where all of them are finished rows.
const STRETCH: MessageId = 50_000;
/// Longer than any gap between the ids and the commits of healthy transactions.
const MARK_AGE: Duration = Duration::from_millis(200);
/// A sweep begins this often, with the rows just below the mark.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// A sweep pauses for this many times as long as its last step took: 2 % of the time at most.
const SWEEP_REST: u32 = 50;

/// Where a lane's claims begin.
#[derive(Debug, Default)]
pub struct LowWaterMark {
    mark: MessageId,
    /// The next mark, once it is old enough.
    candidate: Option<(MessageId, Instant)>,
    /// Whether the last walk ended before the end of the table.
    behind: bool,
    /// The ids that the running sweep has still to look at.
    sweep: Option<(MessageId, MessageId)>,
    /// When the next sweep, or its next step, may begin.
    sweep_at: Option<Instant>,
    swept_last: Option<Instant>,
}

/// The ids that one claim looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walk {
    pub(super) start: MessageId,
    /// Exclusive.
    pub(super) end: MessageId,
    is_sweep: bool,
}

/// What a walk found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    /// The lowest and the highest id of those that were not deferred.
    pub(super) hot: Option<(MessageId, MessageId)>,
    /// Whether there may be more in this stretch.
    pub(super) may_have_more: bool,
    /// The highest id of the table.
    pub(super) highest: MessageId,
}

impl LowWaterMark {
    /// Whether there are ids that the last claim has not come to.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// Claims begin at this id again, if they began above it.
    pub fn lower(&mut self, id: MessageId) {
        if id < self.mark {
            self.mark = id;
            self.candidate = None;
        }
    }

    /// Whether the lowest id of the table is needed, for [`LowWaterMark::begin_sweep`].
    pub(super) fn wants_lowest(&self, now: Instant) -> bool {
        self.sweep.is_none() && self.sweep_at.is_none_or(|at| at <= now)
    }

    /// The first one only sets the mark to the beginning.
    pub(super) fn begin_sweep(&mut self, lowest: MessageId, now: Instant) {
        if self.swept_last.is_none() {
            self.mark = lowest;
        }
        self.sweep = Some((lowest, self.mark)).filter(|(lowest, mark)| lowest < mark);
        self.sweep_at = Some(if self.sweep.is_none() { now + SWEEP_EVERY } else { now });
        self.swept_last = Some(now);
    }

    pub(super) fn next_walk(&self, now: Instant) -> Walk {
        match self.sweep {
            Some((lowest, end)) if self.sweep_at.is_none_or(|at| at <= now) => {
                Walk { start: lowest.max(end - STRETCH), end, is_sweep: true }
            }
            _ => Walk { start: self.mark, end: self.mark.saturating_add(STRETCH), is_sweep: false },
        }
    }

    pub(super) fn walked(&mut self, walk: Walk, found: Found, took: Duration, now: Instant) {
        if walk.is_sweep {
            self.behind = true; // the rows above the mark have not been looked at
            if let Some((first, _)) = found.hot {
                self.lower(first); // there may be more up from there
            }
            self.sweep =
                self.sweep.map(|(lowest, _)| (lowest, walk.start)).filter(|(lowest, end)| lowest < end);
            let next_sweep = self.swept_last.map_or(now, |began| began + SWEEP_EVERY);
            let rested = now + took * SWEEP_REST;
            self.sweep_at = Some(if self.sweep.is_none() { next_sweep.max(rested) } else { rested });
            return;
        }
        self.behind = !found.may_have_more && walk.end <= found.highest;
        if self.behind {
            self.mark = walk.end;
            self.candidate = None;
            return;
        }
        if let Some((id, at)) = self.candidate
            && now.duration_since(at) >= MARK_AGE
        {
            self.mark = id;
            self.candidate = None;
        }
        // What was just claimed is ours: it is finished, comes back by `lower`, or is a crashed worker's.
        let end = if found.may_have_more { found.hot.map(|(_, last)| last) } else { Some(found.highest) };
        if let (None, Some(end)) = (self.candidate, end)
            && end >= self.mark
        {
            self.candidate = Some((end + 1, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);

    fn found(hot: Option<(MessageId, MessageId)>, may_have_more: bool, highest: MessageId) -> Found {
        Found { hot, may_have_more, highest }
    }

    /// A mark at 120,000 of as many ids, all of them looked at.
    fn at_the_end(now: Instant) -> LowWaterMark {
        let mut mark = LowWaterMark::default();
        mark.begin_sweep(1, now);
        let mut walks = Vec::new();
        loop {
            let walk = mark.next_walk(now);
            walks.push((walk.start, walk.end));
            mark.walked(walk, found(None, false, 120_000), QUICK, now);
            if !mark.is_behind() {
                break;
            }
        }
        assert_eq!(walks, [(1, 50_001), (50_001, 100_001), (100_001, 150_001)]);
        let walk = mark.next_walk(now + MARK_AGE);
        mark.walked(walk, found(None, false, 120_000), QUICK, now + MARK_AGE);
        assert_eq!(mark.next_walk(now + MARK_AGE).start, 120_001);
        mark
    }

    #[test]
    fn a_new_relay_walks_the_whole_table_in_stretches_and_then_stays_at_its_end() {
        at_the_end(Instant::now());
    }

    #[test]
    fn the_mark_follows_full_batches_only_when_they_are_old_enough() {
        let (mut mark, now) = (LowWaterMark::default(), Instant::now());
        mark.begin_sweep(1, now);
        mark.walked(mark.next_walk(now), found(Some((1, 500)), true, 9000), QUICK, now);
        mark.walked(mark.next_walk(now), found(Some((501, 1000)), true, 9000), QUICK, now + MARK_AGE / 2);
        assert_eq!(mark.next_walk(now).start, 1, "a transaction may yet commit below");
        mark.walked(mark.next_walk(now), found(Some((1001, 1500)), true, 9000), QUICK, now + MARK_AGE);
        assert_eq!(mark.next_walk(now).start, 501);
        mark.lower(7);
        assert_eq!(mark.next_walk(now).start, 7, "what came back is looked for again");
    }

    #[test]
    fn sweeps_go_down_from_the_mark_in_stretches_with_rests_and_lower_it_to_what_they_find() {
        let began = Instant::now();
        let mut mark = at_the_end(began);
        assert!(!mark.wants_lowest(began + SWEEP_EVERY / 2));
        let mut now = began + SWEEP_EVERY;
        assert!(mark.wants_lowest(now));
        mark.begin_sweep(1, now);
        let walk = mark.next_walk(now);
        assert_eq!((walk.start, walk.end), (70_001, 120_001), "the youngest first");
        mark.walked(walk, found(None, false, 120_000), QUICK, now);
        assert!(mark.is_behind(), "the rows above the mark come next");
        assert_eq!(mark.next_walk(now).start, 120_001, "a rest");
        now += QUICK * SWEEP_REST;
        let walk = mark.next_walk(now);
        assert_eq!((walk.start, walk.end), (20_001, 70_001));
        mark.walked(walk, found(Some((30_000, 30_000)), false, 120_000), QUICK, now);
        assert_eq!(mark.next_walk(now).start, 30_000);
        now += QUICK * SWEEP_REST;
        let walk = mark.next_walk(now);
        assert_eq!((walk.start, walk.end), (1, 20_001));
        mark.walked(walk, found(None, false, 120_000), QUICK, now);
        assert!(!mark.wants_lowest(now) && mark.wants_lowest(now + SWEEP_EVERY));
    }
}
