//! What may happen, and how it is drawn.

use super::stage::{ENTRIES, WORKERS};
use proptest::prelude::*;

/// One step of a case.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// A mail comes in. Its time of receipt is its own: the order of arrival says nothing about the order of the stamps.
    Mail { entry: usize, hour: i64, cents: i64 },
    /// The message of an earlier mail is there twice.
    Duplicate { mail: usize },
    /// An operator replays an earlier mail.
    Replay { mail: usize },
    /// A worker does its next thing: claim, then apply, then finish. Others work in between, so it may come late.
    Step { worker: usize, limit: i64 },
    /// A worker forgets what it has in its hands, and its lease ends.
    Crash { worker: usize },
    /// A worker's lease ends and it does not know: it goes on with what it has.
    LeaseEnds { worker: usize },
    /// The portal writes.
    Portal(Portal),
}

/// What the portal does to the list; it never changes an amount.
#[derive(Debug, Clone)]
pub(super) enum Portal {
    DropMark { entry: usize },
    Reorder { by: usize },
    RewriteWithoutMarks,
    AddCreditor,
    EditOtherFields { entry: usize },
}

/// A mail for one of the entries. Few hours, so that the order of the ids decides often; few amounts, so that some confirm the stored.
pub(super) fn mail() -> impl Strategy<Value = Event> {
    let cents = prop_oneof![(0..4_i64).prop_map(|hundreds| hundreds * 10_000), 0..50_000_000_i64];
    (0..ENTRIES, 0..8_i64, cents).prop_map(|(entry, hour, cents)| Event::Mail { entry, hour, cents })
}

/// The same mail again, by its place among those that have come.
pub(super) fn repetition() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0..16_usize).prop_map(|mail| Event::Duplicate { mail }),
        1 => (0..16_usize).prop_map(|mail| Event::Replay { mail }),
    ]
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let portal = prop_oneof![
        (0..ENTRIES).prop_map(|entry| Portal::DropMark { entry }),
        (0..6_usize).prop_map(|by| Portal::Reorder { by }),
        Just(Portal::RewriteWithoutMarks),
        Just(Portal::AddCreditor),
        (0..ENTRIES).prop_map(|entry| Portal::EditOtherFields { entry }),
    ];
    prop_oneof![
        5 => mail(),
        3 => repetition(),
        12 => (0..WORKERS, 1..6_i64).prop_map(|(worker, limit)| Event::Step { worker, limit }),
        1 => (0..WORKERS).prop_map(|worker| Event::Crash { worker }),
        1 => (0..WORKERS).prop_map(|worker| Event::LeaseEnds { worker }),
        4 => portal.prop_map(Event::Portal),
    ]
}
