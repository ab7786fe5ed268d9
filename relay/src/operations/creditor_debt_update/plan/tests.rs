//! An entry without our mark, in which somebody has entered another amount with a date: who may write over it.

use super::*;
use crate::{
    client::Identity,
    debt_update::{Head, Reading, of_reading},
};
use jiff::{Timestamp, ToSpan};
use shared::message::{Revision, Stamp};

fn amount(text: &str) -> Amount {
    text.parse().unwrap()
}

fn mail_at() -> Timestamp {
    "2026-02-17T09:00:00Z".parse().unwrap()
}

/// An update of 900.00 by the mail 7.
fn update(origin: Origin) -> CreditorDebtUpdate {
    let head = Head { email_id: 7, from_email: "a@b.example", received_at: mail_at() };
    let stamp = Stamp::new(mail_at(), 7, Revision::FIRST).unwrap();
    let update = of_reading(head, &Reading::default(), stamp);
    CreditorDebtUpdate { new_debt_amount: Some(amount("900")), origin, ..update }
}

/// What the ledger has of it.
fn mark() -> LedgerMark {
    let update = update(Origin::Mail);
    LedgerMark { stamp: update.stamp, email_id: update.email_id, amount: update.new_debt_amount }
}

/// `written`, or the reason it is held for, or that it is there already; the entry has lost its mark and was answered an hour after the mail.
fn fate(update: CreditorDebtUpdate, stored: &str, ledger: Option<LedgerMark>) -> String {
    let entry = Entry {
        position: 0,
        id: Some("e".into()),
        entry_key: "e".into(),
        addressable: true,
        identity: Identity::default(),
        stored: StoredAmount::Known(amount(stored)),
        answered_at: Some(mail_at() + 1.hour()),
        fence: None,
    };
    let client = Client {
        client_id: "c".into(),
        aktenzeichen: None,
        first_name: String::new(),
        last_name: String::new(),
        entries: vec![entry],
    };
    let found = Found::of(client);
    let target = Target { found: &found, entry: &found.client.entries[0], confidence: 1.0 };
    let marks: Marks = ledger.map(|mark| (("c".into(), "e".into()), mark)).into_iter().collect();
    let open = [Open::new(1, None, update)];
    match plan(WriteGuard { hold_lower: true }, &open, vec![Ok(target)], &marks).remove(0).1 {
        Step::Write { .. } => "written".into(),
        Step::Ended(verdict) => verdict.reason,
        Step::Failed(failure) => failure.text,
        Step::Coalesced => "waits".into(),
    }
}

#[test]
fn a_mail_older_than_the_answer_in_an_entry_without_a_mark_waits_for_a_person() {
    assert_eq!(fate(update(Origin::Mail), "800", None), ANSWERED_LATER);
    let older = LedgerMark { stamp: Stamp::try_from(1).unwrap(), ..mark() };
    assert_eq!(fate(update(Origin::Mail), "800", Some(older)), ANSWERED_LATER);
    let later = CreditorDebtUpdate { received_at: mail_at() + 1.hour(), ..update(Origin::Mail) };
    assert_eq!(fate(later, "800", None), "written");
}

#[test]
fn what_a_person_has_decided_is_written_over_a_later_answer() {
    let decided = |origin| CreditorDebtUpdate { decided_by: Some("Frau Kundig".into()), ..update(origin) };
    for origin in [Origin::Decision, Origin::Replay] {
        assert_eq!(fate(decided(origin), "1000", None), "written", "{origin:?}");
    }
}

#[test]
fn a_repair_is_written_over_a_later_answer_that_its_plan_has_seen() {
    let seen = |text| Some(Expected { stamp: None, amount: Some(amount(text)) });
    let repair = |text| CreditorDebtUpdate { expected: seen(text), ..update(Origin::Repair) };
    assert_eq!(fate(repair("1000"), "1000", Some(mark())), "written");
    assert_eq!(fate(repair("1000"), "1100", Some(mark())), STALE);
}

#[test]
fn a_replay_of_the_ledgers_newest_brings_back_an_amount_from_under_a_later_answer() {
    assert_eq!(fate(update(Origin::Replay), "1000", Some(mark())), "written");
    // The ledger knows nothing of it, or something else: nothing tells whose the later answer is.
    assert_eq!(fate(update(Origin::Replay), "800", None), ANSWERED_LATER);
    // A mail's own repeat leaves it to the reconciliation.
    assert_eq!(fate(update(Origin::Mail), "1000", Some(mark())), "this update is stored already");
}

#[test]
fn where_the_amount_is_right_a_later_answer_is_in_nobodys_way() {
    assert_eq!(fate(update(Origin::Mail), "900", None), "written", "which gives the entry a mark");
    let repair = CreditorDebtUpdate {
        expected: Some(Expected { stamp: None, amount: Some(amount("900")) }),
        ..update(Origin::Repair)
    };
    assert_eq!(fate(repair, "900", Some(mark())), "written");
}
