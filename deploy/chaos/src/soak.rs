//! What programs and tables hold while a soak goes on, and whether it stays as it is: the last third of the samples compared with
//! the middle one.

use crate::{
    checker::{Breach, Breaches},
    stage::Stage,
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, time::Duration};
use testkit::report::{percentile, rounded};
use tokio::time::timeout;

/// Above this ratio something grows.
const FLAT: f64 = 1.1;
/// Minutes of a soak below which nothing is said about growth: programs and pages still fill.
const TELLING: u32 = 30;
/// Tables with rows for every mail: they grow, but not by more for each mail.
const OF_MAILS: [&str; 4] = ["incoming_emails", "idempotency_keys", "outbox_messages", "decisions"];
/// The highest id of a mail, which stands for their number.
const MAILS: &str = "mails";
/// What must have been looked at in half of a soak's time at least: of the others some may be missing at first.
const NEEDED: [&str; 6] =
    ["ingest_rss_mib", "ingest_open_files", "relay_rss_mib", "relay_open_files", MAILS, "creditor_debts_kib"];
/// Indexes included.
const SIZES: &str = "select relname::text, pg_total_relation_size(relid)::float8,
    (select coalesce(max(id), 0) from incoming_emails)::float8 from pg_stat_user_tables";

/// All that was seen, by name, in the order of time.
#[derive(Debug, Default)]
pub struct Samples(BTreeMap<String, Vec<f64>>);

impl Samples {
    /// Looks at the first of each program and at the tables. What cannot be told at the moment is left out.
    pub async fn take(&mut self, stage: &Stage) -> Value {
        let mut now: Vec<(String, f64)> = Vec::new();
        for (name, mib, files) in stage.first_ones() {
            now.extend([(format!("{name}_rss_mib"), mib), (format!("{name}_open_files"), files as f64)]);
        }
        now.extend(timeout(Duration::from_secs(2), sizes(stage)).await.ok().flatten().unwrap_or_default());
        for (name, value) in &now {
            self.0.entry(name.clone()).or_default().push(*value);
        }
        Value::Object(now.into_iter().map(|(name, value)| (name, json!(rounded(value)))).collect())
    }

    /// The middle third and the last one of everything, and their ratio.
    #[must_use]
    pub fn figures(&self) -> Value {
        let of = |name: &String, values: &Vec<f64>| {
            let (middle, last) = self.thirds(name, values);
            json!({ "middle": rounded(middle), "last": rounded(last), "ratio": rounded(last / middle),
                "max": rounded(percentile(values, 1.0)) })
        };
        let all: Map<String, Value> =
            self.0.iter().map(|(name, values)| (name.clone(), of(name, values))).collect();
        json!({ "samples": all })
    }

    /// What has grown in so many minutes with so many samples each, or was not looked at.
    #[must_use]
    pub fn growth(&self, minutes: u32, samples_per_minute: u32) -> Breaches {
        if minutes < TELLING {
            return Breaches::new();
        }
        let least = (minutes * samples_per_minute / 2) as usize;
        let few = NEEDED.iter().filter(|name| self.0.get(**name).is_none_or(|values| values.len() < least));
        let few = few.map(|name| (Breach::Grown, format!("{name}: not looked at often enough to tell")));
        let grown = self.0.iter().filter(|(name, _)| *name != MAILS).filter_map(|(name, values)| {
            let (middle, last) = self.thirds(name, values);
            let grows = last > middle * FLAT + slack(name);
            grows.then(|| (Breach::Grown, format!("{name} from {middle:.1} to {last:.1}")))
        });
        few.chain(grown).collect()
    }

    /// What is compared of the middle third and of the last: medians, or of a table of mails the bytes that each more mail took.
    fn thirds(&self, name: &str, values: &[f64]) -> (f64, f64) {
        let thirds = [values.len() / 3, values.len() * 2 / 3, values.len().saturating_sub(1)];
        let of_mails = name.strip_suffix("_kib").is_some_and(|table| OF_MAILS.contains(&table));
        match self.0.get(MAILS).filter(|_| of_mails) {
            Some(mails) => {
                let at = |values: &[f64], index: usize| values.get(index).copied().unwrap_or_default();
                let [first, second, end] = thirds.map(|index| (at(values, index), at(mails, index)));
                let each = |from: (f64, f64), to: (f64, f64)| (to.0 - from.0) * 1024.0 / (to.1 - from.1);
                (each(first, second), each(second, end))
            }
            None => {
                let part = |from, to| percentile(values.get(from..to).unwrap_or_default(), 0.5);
                (part(thirds[0], thirds[1]), part(thirds[1], values.len()))
            }
        }
    }
}

/// What small things may grow by: some connections, one more arena of the allocator, some pages of a table.
fn slack(name: &str) -> f64 {
    match name.rsplit('_').next() {
        Some("files") => 16.0,
        Some("mib") => 4.0,
        _ if OF_MAILS.iter().any(|table| name.starts_with(table)) => 0.0,
        _ => 1024.0,
    }
}

async fn sizes(stage: &Stage) -> Option<Vec<(String, f64)>> {
    let sql = shared::postgres::connect(&stage.postgres.url, "chaos").await.ok()?;
    let rows = sql.query(SIZES, &[]).await.ok()?;
    let mails = rows.first().map(|row| (MAILS.to_owned(), row.get(2)));
    let tables =
        rows.iter().map(|row| (format!("{}_kib", row.get::<_, &str>(0)), row.get::<_, f64>(1) / 1024.0));
    Some(tables.chain(mails).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour in order, but for this.
    fn hour(name: &str, value: impl Fn(f64) -> f64) -> Samples {
        let mut samples = Samples::default();
        for time in (0..360).map(f64::from) {
            let mails = 1_000.0 * time;
            for (name, value) in [("relay_rss_mib", 50.0), ("relay_open_files", 40.0), (MAILS, mails)] {
                samples.0.entry(name.into()).or_default().push(value);
            }
            for (name, value) in [
                ("ingest_rss_mib", 13.0),
                ("ingest_open_files", 26.0),
                ("creditor_debts_kib", 600.0),
                ("outbox_messages_kib", 64.0 + mails),
            ] {
                samples.0.entry(name.into()).or_default().push(value);
            }
        }
        samples.0.insert(name.into(), (0..360).map(f64::from).map(value).collect());
        samples
    }

    fn grows(name: &str, value: impl Fn(f64) -> f64) -> Vec<String> {
        let found = hour(name, value).growth(60, 6).into_iter();
        found.map(|(breach, what)| format!("{breach:?} {what}")).collect()
    }

    #[test]
    fn what_grows_to_the_end_is_found_and_what_has_grown_at_first_is_not() {
        let leaks = grows("relay_rss_mib", |time| 50.0 + time / 5.0);
        assert_eq!(leaks, ["Grown relay_rss_mib from 86.0 to 110.0"]);
        assert_eq!(grows("relay_rss_mib", |time| 50.0 + time.min(100.0)), Vec::<String>::new());
        assert_eq!(grows("relay_rss_mib", |time| 80.0 - time / 10.0), Vec::<String>::new());
        assert_eq!(
            grows("relay_workers_kib", |time| if time < 200.0 { 32.0 } else { 40.0 }),
            Vec::<String>::new()
        );
        assert_eq!(grows("creditor_debts_kib", |time| 600.0 + time * 20.0).len(), 1);
    }

    #[test]
    fn a_table_of_mails_may_grow_by_as_much_for_each_mail_and_not_by_more() {
        assert_eq!(grows("outbox_messages_kib", |time| 9_000.0 + 2_000.0 * time), Vec::<String>::new());
        let later_more = |time: f64| 2_000.0 * time + 500.0 * (time - 240.0).max(0.0);
        let found = grows("outbox_messages_kib", later_more);
        assert_eq!(found, ["Grown outbox_messages_kib from 2048.0 to 2560.0"]);
    }

    #[test]
    fn nothing_is_said_of_a_short_soak_and_what_was_not_looked_at_is_found() {
        assert_eq!(hour("relay_rss_mib", |time| time * 10.0).growth(TELLING - 1, 6), []);
        assert_eq!(Samples::default().growth(60, 6).len(), NEEDED.len());
        let mut few = hour("relay_rss_mib", |_| 50.0);
        few.0.entry("ingest_open_files".into()).or_default().truncate(100);
        assert_eq!(few.growth(60, 6).len(), 1);
    }
}
