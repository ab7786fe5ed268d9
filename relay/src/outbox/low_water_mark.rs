//! Where a lane's claims walk the primary key: pure, the ids of one walk after the other.
//!
//! Finished rows stay in the table for weeks, so claims begin at the low-water mark: what lies below it is finished, deferred or
//! held by somebody. A walk covers a bounded stretch of ids and the next one begins where it found nothing, so no single statement
//! grows with the table. Rows below the mark (a crashed worker's, another relay's returned ones, those of a transaction that
//! committed late) are found by looking at the stretch below it every few seconds, and by sweeps that go on down from there at a
//! pace that costs little.

use shared::message::MessageId;
use std::time::{Duration, Instant};

/// Ids of one walk: some 20 ms where all of them are finished rows.
const STRETCH: MessageId = 50_000;
/// Longer than any gap between the ids and the commits of healthy transactions.
const MARK_AGE: Duration = Duration::from_millis(200);
/// The stretch just below the mark is looked at this often; a sweep of all below it begins then, unless one is under way.
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
    /// The lowest id of the table.
    lowest: MessageId,
    /// When the stretch below the mark is looked at next.
    below_at: Option<Instant>,
    /// Whether that look is due now.
    below: bool,
    /// The end of the ids that the running sweep has still to look at.
    sweep: Option<MessageId>,
    /// When its next step may begin.
    sweep_at: Option<Instant>,
}

/// The ids that one claim looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walk {
    pub(super) start: MessageId,
    /// Exclusive.
    pub(super) end: MessageId,
    way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Up from the mark.
    Up,
    /// Just below the mark.
    Below,
    /// A step of a sweep.
    Sweep,
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

    /// Whether it is time for [`LowWaterMark::look_below`].
    pub(super) fn wants_lowest(&self, now: Instant) -> bool {
        self.below_at.is_none_or(|at| at <= now)
    }

    /// The first time only sets the mark to the beginning.
    pub(super) fn look_below(&mut self, lowest: MessageId, now: Instant) {
        if self.below_at.is_none() {
            self.mark = lowest;
        }
        self.lowest = lowest;
        self.below_at = Some(now + SWEEP_EVERY);
        self.below = lowest < self.mark;
        self.sweep = self.sweep.or(Some(self.mark - STRETCH)).filter(|end| *end > lowest);
    }

    pub(super) fn next_walk(&self, now: Instant) -> Walk {
        let down = |end: MessageId, way| Walk { start: self.lowest.max(end - STRETCH), end, way };
        match self.sweep {
            _ if self.below => down(self.mark, Way::Below),
            Some(end) if self.sweep_at.is_none_or(|at| at <= now) => down(end, Way::Sweep),
            _ => Walk { start: self.mark, end: self.mark.saturating_add(STRETCH), way: Way::Up },
        }
    }

    pub(super) fn walked(&mut self, walk: Walk, found: Found, took: Duration, now: Instant) {
        if walk.way != Way::Up {
            self.behind = true; // the rows above the mark have not been looked at
            if walk.way == Way::Sweep {
                self.sweep = Some(walk.start).filter(|end| *end > self.lowest);
            }
            self.below = false;
            self.sweep_at = Some(now + took * SWEEP_REST);
            if found.hot.is_some() || found.may_have_more {
                self.lower(found.hot.map_or(walk.start, |(first, _)| first)); // there may be more up from there
            }
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
        mark.look_below(1, now);
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
        mark.look_below(1, now);
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
        mark.look_below(1, now);
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
        mark.walked(walk, found(None, true, 120_000), QUICK, now);
        assert_eq!(mark.next_walk(now).start, 1, "a suspect was taken alone: what is around it comes next");
        assert!(!mark.wants_lowest(now) && mark.wants_lowest(now + SWEEP_EVERY));
    }
}
