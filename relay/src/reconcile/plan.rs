//! What a look at the ledger and then at MongoDB says about one entry, and what follows from it. Pure.

use crate::client::{Entry, StoredAmount};
use serde::Serialize;
use shared::{
    message::{EmailId, Expected, MessageId, Stamp},
    money::Amount,
};

/// One row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debt {
    /// `_id` of the document.
    pub client_id: String,
    /// The entry in it.
    pub entry_key: String,
    /// The amount that MongoDB carried.
    pub amount: Amount,
    /// Its stamp.
    pub stamp: Stamp,
    /// The message that brought it there.
    pub message_id: MessageId,
    /// Its mail.
    pub email_id: EmailId,
}

/// What MongoDB has for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seen<'a> {
    /// There is no such document.
    NoClient,
    /// The document has no such entry.
    NoEntry,
    /// The entry cannot be told from another one, or its document could not be read.
    Unclear,
    /// The entry.
    Entry(&'a Entry),
}

/// How the two differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Drift {
    /// Our mark is missing or older, and the amount is another one: an update of ours is not there any more.
    LostUpdate,
    /// Our mark is missing or older, and the amount is right.
    LostFence,
    /// Our mark is there, and the amount is another one: somebody has edited it after us.
    Edited,
    /// MongoDB carries a newer update than Postgres knows of, or our mark is missing and the entry shows another amount with a later
    /// answer than ours: so looks a Postgres that was restored to an earlier point.
    Ahead,
    /// The entry is not in its document any more.
    EntryGone,
    /// The document is not there any more.
    ClientGone,
    /// The amount is no number, or the entry cannot be told from another one.
    Unreadable,
}

impl Drift {
    /// All kinds.
    pub const ALL: [Drift; 7] = [
        Drift::LostUpdate,
        Drift::LostFence,
        Drift::Edited,
        Drift::Ahead,
        Drift::EntryGone,
        Drift::ClientGone,
        Drift::Unreadable,
    ];

    /// The name in reports and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Drift::LostUpdate => "lost_update",
            Drift::LostFence => "lost_fence",
            Drift::Edited => "edited",
            Drift::Ahead => "ahead",
            Drift::EntryGone => "entry_gone",
            Drift::ClientGone => "client_gone",
            Drift::Unreadable => "unreadable",
        }
    }

    /// Whether a repair may put it right: what others have done on purpose is only reported, unless an operator asks for it.
    #[must_use]
    pub const fn is_repaired(self, edited_too: bool) -> bool {
        match self {
            Drift::LostUpdate | Drift::LostFence => true,
            Drift::Edited => edited_too,
            Drift::Ahead | Drift::EntryGone | Drift::ClientGone | Drift::Unreadable => false,
        }
    }
}

/// How an entry differs from its ledger row; None = it does not.
#[must_use]
pub fn drift(debt: &Debt, seen: Seen<'_>) -> Option<Drift> {
    let entry = match seen {
        Seen::NoClient => return Some(Drift::ClientGone),
        Seen::NoEntry => return Some(Drift::EntryGone),
        Seen::Unclear => return Some(Drift::Unreadable),
        Seen::Entry(entry) => entry,
    };
    if !entry.addressable {
        return Some(Drift::Unreadable);
    }
    let is_right = match entry.stored {
        StoredAmount::Unreadable => return Some(Drift::Unreadable),
        StoredAmount::None => false,
        StoredAmount::Known(amount) => amount == debt.amount,
    };
    let own = debt.stamp.to_string();
    // As MongoDB compares them: as strings.
    match entry.fence.as_ref().map(|fence| fence.stamp.as_str().cmp(&own)) {
        Some(std::cmp::Ordering::Greater) => Some(Drift::Ahead),
        Some(std::cmp::Ordering::Equal) => (!is_right).then_some(Drift::Edited),
        Some(std::cmp::Ordering::Less) | None if is_right => Some(Drift::LostFence),
        // Somebody has written after the ledger's mail. After a restore of Postgres that may be an update of ours that is lost there:
        // a repair would write what is older over it.
        None if entry.answered_at.is_some_and(|at| Some(at) > debt.stamp.time()) => Some(Drift::Ahead),
        Some(std::cmp::Ordering::Less) | None => Some(Drift::LostUpdate),
    }
}

/// The state that a repair of this entry has to find again.
#[must_use]
pub(super) fn expected(entry: &Entry) -> Expected {
    Expected { stamp: entry.fence.as_ref().map(|fence| fence.stamp.clone()), amount: entry.stored.known() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Fence, Identity};
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn debt(cents: i64, stamp: i64) -> Debt {
        Debt {
            client_id: "c".into(),
            entry_key: "e".into(),
            amount: amount(cents),
            stamp: Stamp::try_from(stamp).unwrap(),
            message_id: 1,
            email_id: 7,
        }
    }

    fn amount(cents: i64) -> Amount {
        Amount::from_decimal(rust_decimal::Decimal::new(cents, 2)).unwrap()
    }

    fn entry(stored: StoredAmount, stamp: Option<i64>) -> Entry {
        let mark =
            |stamp| Fence { stamp: Stamp::try_from(stamp).unwrap().to_string(), email_id: 7, previous: None };
        Entry {
            position: 0,
            id: Some("e".into()),
            entry_key: "e".into(),
            addressable: true,
            identity: Identity::default(),
            stored,
            answered_at: None,
            fence: stamp.map(mark),
        }
    }

    /// What applying a repair of the plan does to an entry, as MongoDB's filter lets it.
    fn repaired(debt: &Debt, seen: &Entry, now: &Entry) -> Entry {
        let expected = expected(seen);
        let is_as_seen = now.fence.as_ref().map(|fence| fence.stamp.clone()) == expected.stamp
            && now.stored.known() == expected.amount;
        if !is_as_seen {
            return now.clone();
        }
        let fence = Fence { stamp: debt.stamp.to_string(), email_id: debt.email_id, previous: None };
        Entry { stored: StoredAmount::Known(debt.amount), fence: Some(fence), ..now.clone() }
    }

    fn stored() -> impl Strategy<Value = StoredAmount> {
        prop_oneof![
            Just(StoredAmount::None),
            Just(StoredAmount::Unreadable),
            (0_i64..4).prop_map(|cents| StoredAmount::Known(amount(cents))),
        ]
    }

    proptest! {
        #[test]
        fn a_repaired_entry_is_equal_and_a_second_plan_is_empty(
            cents in 0_i64..4, stamp in 0_i64..4, stored in stored(), mark in proptest::option::of(0_i64..4), edited_too in any::<bool>(),
        ) {
            let (debt, before) = (debt(cents, stamp), entry(stored, mark));
            let Some(drift) = drift(&debt, Seen::Entry(&before)) else {
                prop_assert_eq!(before.stored.known(), Some(debt.amount));
                prop_assert_eq!(&before.fence.unwrap().stamp, &debt.stamp.to_string());
                return Ok(());
            };
            if drift.is_repaired(edited_too) {
                let after = repaired(&debt, &before, &before);
                prop_assert_eq!(super::drift(&debt, Seen::Entry(&after)), None);
            } else {
                // What is left alone is what somebody else has done, or what nobody can read.
                let ahead = mark.is_some_and(|mark| mark > stamp);
                let edited = mark == Some(stamp) && !edited_too;
                prop_assert!(ahead || edited || stored == StoredAmount::Unreadable);
            }
        }

        #[test]
        fn a_repair_never_touches_what_has_changed_since_its_plan(
            cents in 0_i64..4, stamp in 0_i64..4, first in stored(), then in stored(),
            mark in proptest::option::of(0_i64..4), later in proptest::option::of(0_i64..4),
        ) {
            let (debt, seen, now) = (debt(cents, stamp), entry(first, mark), entry(then, later));
            if first.known() != then.known() || mark != later {
                prop_assert_eq!(repaired(&debt, &seen, &now), now);
            }
        }
    }

    #[test]
    fn without_a_mark_a_later_answer_is_ahead_only_where_the_amount_is_another_one() {
        let debt = debt(5, 1_000 << 20);
        let at = |ms: i64| Some(Timestamp::from_millisecond(ms).unwrap());
        let drift = |stored, mark, answered_at| {
            drift(&debt, Seen::Entry(&Entry { answered_at, ..entry(stored, mark) }))
        };
        let (right, wrong) = (StoredAmount::Known(amount(5)), StoredAmount::Known(amount(6)));
        for answered_at in [None, at(999), at(1_000), at(1_001)] {
            assert_eq!(drift(right, None, answered_at), Some(Drift::LostFence), "{answered_at:?}");
            assert_eq!(
                drift(wrong, Some(5), answered_at),
                Some(Drift::LostUpdate),
                "an older mark of ours, {answered_at:?}"
            );
        }
        for answered_at in [None, at(999), at(1_000)] {
            assert_eq!(drift(wrong, None, answered_at), Some(Drift::LostUpdate), "{answered_at:?}");
        }
        assert_eq!(drift(wrong, None, at(1_001)), Some(Drift::Ahead));
    }

    #[test]
    fn what_is_not_there_or_cannot_be_told_is_reported() {
        let debt = debt(5, 5);
        assert_eq!(drift(&debt, Seen::NoClient), Some(Drift::ClientGone));
        assert_eq!(drift(&debt, Seen::NoEntry), Some(Drift::EntryGone));
        assert_eq!(drift(&debt, Seen::Unclear), Some(Drift::Unreadable));
        let twin = Entry { addressable: false, ..entry(StoredAmount::Known(amount(5)), Some(5)) };
        assert_eq!(drift(&debt, Seen::Entry(&twin)), Some(Drift::Unreadable));
    }
}
