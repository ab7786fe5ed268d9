//! What programs and tables hold while a soak goes on, and whether it stays: the median of the last third of the samples over
//! that of the third before. Pure, but for the question to Postgres.

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
/// Tables with rows for every mail: their bytes for each mail must stay, those of all others as they are.
const OF_MAILS: [&str; 4] = ["incoming_emails", "idempotency_keys", "outbox_messages", "decisions"];
/// Indexes included; the highest id stands for the number of mails.
const SIZES: &str = "select relname::text, pg_total_relation_size(relid)::float8,
    (select coalesce(max(id), 1) from incoming_emails)::float8 from pg_stat_user_tables";

/// All that was held, by name, in the order of time.
#[derive(Debug, Default)]
pub struct Samples(BTreeMap<String, Vec<f64>>);

impl Samples {
    /// Looks at the first of each program and at the tables. What cannot be told at the moment is left out.
    pub async fn sample(&mut self, stage: &Stage) -> Value {
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

    /// For each name: the median of the last two thirds, and their ratio.
    #[must_use]
    pub fn figures(&self) -> Value {
        let of_all: Map<String, Value> = self
            .0
            .iter()
            .map(|(name, values)| {
                let (middle, last) = medians(values);
                let figures = json!({ "middle": rounded(middle), "last": rounded(last), "ratio": rounded(last / middle),
                    "max": rounded(percentile(values, 1.0)) });
                (name.clone(), figures)
            })
            .collect();
        json!({ "held": of_all })
    }

    /// What has grown in so many minutes.
    #[must_use]
    pub fn growth(&self, minutes: u32) -> Breaches {
        if minutes < TELLING {
            return Breaches::new();
        }
        let grown = self.0.iter().map(|(name, values)| (name, medians(values)));
        grown
            .filter(|(_, (middle, last))| last / middle > FLAT)
            .map(|(name, (middle, last))| (Breach::Grown, format!("{name} from {middle:.1} to {last:.1}")))
            .collect()
    }
}

/// Of the middle third and of the last.
fn medians(values: &[f64]) -> (f64, f64) {
    let third = values.len() / 3;
    let (before, last) = values.split_at(values.len() - third);
    (percentile(before.get(before.len() - third..).unwrap_or_default(), 0.5), percentile(last, 0.5))
}

async fn sizes(stage: &Stage) -> Option<Vec<(String, f64)>> {
    let sql = shared::postgres::connect(&stage.postgres.url, "chaos").await.ok()?;
    let rows = sql.query(SIZES, &[]).await.ok()?;
    let size = |table: String, bytes: f64, mails: f64| match OF_MAILS.contains(&table.as_str()) {
        true => (format!("{table}_bytes_per_mail"), bytes / mails),
        false => (format!("{table}_kib"), bytes / 1024.0),
    };
    Some(rows.iter().map(|row| size(row.get(0), row.get(1), row.get(2))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(values: impl Iterator<Item = f64>) -> Samples {
        Samples([("relay_rss_mib".to_owned(), values.collect())].into())
    }

    #[test]
    fn what_grows_to_the_end_is_found_and_what_has_grown_at_first_is_not() {
        let leaks = held((0..360).map(|sample| 50.0 + f64::from(sample) / 10.0));
        assert_eq!(leaks.growth(60), [(Breach::Grown, "relay_rss_mib from 68.0 to 80.0".to_owned())]);
        let warms_up = held((0..360).map(|sample| 50.0 + f64::from(sample.min(100))));
        assert_eq!(warms_up.growth(60), []);
        let shrinks = held((0..360).map(|sample| 80.0 - f64::from(sample) / 10.0));
        assert_eq!(shrinks.growth(60), []);
    }

    #[test]
    fn nothing_is_said_of_a_short_soak_or_of_nothing() {
        let leaks = held((0..120).map(f64::from));
        assert_eq!(leaks.growth(TELLING - 1), []);
        assert_ne!(leaks.growth(TELLING), []);
        assert_eq!(held(std::iter::empty()).growth(60), []);
    }
}
