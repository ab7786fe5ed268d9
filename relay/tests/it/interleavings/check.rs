//! What has to hold after every step, and at the end.

use super::stage::{Course, ENTRIES, Mail, Stage, address};
use mongodb::bson::Document;
use shared::{message::Stamp, money::Amount};

/// The list and the ledger at one moment.
pub(super) struct State {
    list: Vec<Document>,
    ledger: [Option<Stamp>; ENTRIES],
}

impl State {
    fn entry(&self, entry: usize) -> &Document {
        let address = address(entry);
        self.list
            .iter()
            .find(|element| element.get_str("sender_email").is_ok_and(|mail| mail == address))
            .unwrap()
    }

    fn others(&self) -> impl Iterator<Item = &Document> {
        let ours: Vec<String> = (0..ENTRIES).map(address).collect();
        self.list.iter().filter(move |element| {
            !ours.iter().any(|ours| element.get_str("sender_email").is_ok_and(|mail| mail == ours))
        })
    }
}

fn amount(element: &Document) -> Option<Amount> {
    let value = element.get("current_debt_amount")?;
    // The portal of the stage writes whole numbers as int32.
    Amount::from_f64(value.as_f64().or(value.as_i32().map(f64::from)).unwrap())
}

fn mark(element: &Document) -> Option<Stamp> {
    Some(element.get_document("_relay").ok()?.get_str("stamp").unwrap().parse().unwrap())
}

impl Stage<'_> {
    pub(super) async fn state(&self) -> State {
        State { list: self.world.entries().await, ledger: self.ledger().await }
    }

    /// By entry; also checks that each row has the amount of its stamp.
    pub(super) async fn ledger(&self) -> [Option<Stamp>; ENTRIES] {
        let mut ledger = [None; ENTRIES];
        let statement = "select email_id, stamp, amount::text from creditor_debts where email_id = any($1)";
        let ids: Vec<i64> = self.mails.iter().map(|mail| mail.email_id).collect();
        for row in self.world.sql.query(statement, &[&ids]).await.unwrap() {
            let mail = self.mails.iter().find(|mail| mail.email_id == row.get::<_, i64>(0)).unwrap();
            assert_eq!(
                (mail.stamp.number(), mail.amount.to_string()),
                (row.get(1), row.get(2)),
                "one mail's row"
            );
            assert_eq!(ledger[mail.entry].replace(mail.stamp), None, "one row per entry");
        }
        ledger
    }

    /// One batch did what the rules say, and nothing else: of the amounts of one entry that are newer than what it has, each passes
    /// the guard after the one before it, and the last that passes is written.
    pub(super) async fn check_applied(&mut self, before: &State, batch: Vec<Mail>) {
        let after = self.state().await;
        assert_eq!(before.others().collect::<Vec<_>>(), after.others().collect::<Vec<_>>());
        for entry in 0..ENTRIES {
            let (old, new) = (before.entry(entry), after.entry(entry));
            let known = mark(old).or(before.ledger[entry]);
            let mut newer: Vec<&Mail> =
                batch.iter().filter(|mail| mail.entry == entry && Some(mail.stamp) > known).collect();
            newer.sort_by_key(|mail| mail.stamp);
            let mut written: Option<&Mail> = None;
            for mail in newer {
                let stored = written.map(|written| written.amount).or(amount(old));
                if !self.context.guard.hold_lower || stored.is_none_or(|stored| mail.amount >= stored) {
                    written = Some(mail);
                }
            }
            let Some(written) = written else {
                assert_eq!(old, new, "nothing passes, so nothing is written");
                continue;
            };
            assert_eq!((mark(new), amount(new)), (Some(written.stamp), Some(written.amount)));
            let previous = new.get_document("_relay").unwrap().get_f64("previous").ok();
            assert_eq!(previous, amount(old).map(Amount::to_f64), "what was there before");
            for field in ["id", "sender_email", "claim_amount", "portal_note"] {
                assert_eq!(old.get(field), new.get(field), "{field}");
            }
        }
        self.check_never_back().await;
    }

    /// Neither an entry nor the ledger goes back to a lower stamp, and an entry has the amount of the highest that it ever had.
    pub(super) async fn check_never_back(&mut self) {
        let state = self.state().await;
        for entry in 0..ENTRIES {
            let element = state.entry(entry);
            if let Some(mark) = mark(element) {
                assert!(Some(mark) >= self.stored[entry], "entry {entry} went back");
                self.stored[entry] = Some(mark);
            }
            let carried = self.mails.iter().find(|mail| Some(mail.stamp) == self.stored[entry]);
            assert_eq!(amount(element), carried.map(|mail| mail.amount), "entry {entry}");
            assert!(state.ledger[entry] >= self.in_ledger[entry], "the ledger of entry {entry} went back");
            assert!(state.ledger[entry] <= self.stored[entry], "the ledger knows only what was written");
            self.in_ledger[entry] = state.ledger[entry];
        }
    }

    /// Every message has ended well and once.
    pub(super) async fn check_ended(&self, allowed: &[&str]) {
        let statement =
            "select o.id, coalesce(o.outcome, o.error_class, 'waiting'), o.retry_count, o.claim_count,
                (select count(*) from decisions d where d.message_id = o.id), m.sync_status
            from outbox_messages o join incoming_emails m on m.id = o.aggregate_id::bigint order by o.id";
        let rows = self.world.sql.query(statement, &[]).await.unwrap();
        assert_eq!(rows.len(), self.messages.len());
        for row in rows {
            let (id, outcome): (i64, &str) = (row.get(0), row.get(1));
            let Course { claims, finishes, ends, .. } = self.messages[&id];
            assert!(allowed.contains(&outcome), "message {id}: {outcome}");
            assert_eq!((ends, row.get::<_, i64>(4)), (1, 1), "ends and decisions of message {id}");
            assert_eq!(row.get::<_, i32>(2), 0, "counted attempts of message {id}");
            assert_eq!(row.get::<_, i64>(3), claims + finishes, "transitions of message {id}");
            let shown: &str = row.get(5);
            assert!(
                shown == "synced" || shown == "not_applicable" && allowed.contains(&"held_for_review"),
                "{shown}"
            );
        }
    }

    /// The property: the highest stamp of all mails about an entry is in the ledger and, unless the portal has dropped the mark
    /// since, in the entry; its amount is there in any case.
    pub(super) async fn check_newest_stored(&self) {
        let state = self.state().await;
        for entry in 0..ENTRIES {
            let newest = self.mails.iter().filter(|mail| mail.entry == entry).max_by_key(|mail| mail.stamp);
            let stamp = newest.map(|mail| mail.stamp);
            assert_eq!(state.ledger[entry], stamp, "the ledger of entry {entry}");
            assert_eq!(amount(state.entry(entry)), newest.map(|mail| mail.amount), "entry {entry}");
            let mark = mark(state.entry(entry));
            assert!(mark.is_none() || mark == stamp, "the mark of entry {entry}");
        }
    }
}
