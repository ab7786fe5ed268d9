//! What a run prints about itself. Pure, but for the words.

use crate::{
    checker::{BREACHES, Breaches, Evidence},
    schedule::Fault,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use testkit::report::{percentile, rounded, say};

/// Of each kind of breach, so many are told.
const TOLD: usize = 10;

/// What was sent, and what came of it.
#[must_use]
pub fn figures(evidence: &Evidence) -> Value {
    let outcomes = evidence.messages.iter().map(|message| {
        let outcome = message.outcome.as_deref().or(message.dead.as_deref()).unwrap_or("waiting");
        format!("{}/{outcome}", message.operation)
    });
    json!({
        "deliveries": evidence.sent.len(), "answered_200": evidence.sent.iter().map(|sent| sent.answers.len()).sum::<usize>(),
        "mails": evidence.mails.len(), "writes": evidence.history.len(), "outcomes": count(outcomes),
    })
}

/// What struck, and how long it took until all was well again.
#[must_use]
pub fn faults(struck: &[Fault], recoveries: &[(String, Duration)]) -> Value {
    json!({
        "faults": count(struck.iter().map(|fault| fault.name())), "struck": struck.len(), "recovered": recoveries.len(),
        "recovery_seconds": recovery(recoveries),
    })
}

/// How often each kind of breach was found.
#[must_use]
pub fn counted(breaches: &Breaches) -> Value {
    let of = |kind| breaches.iter().filter(|(breach, _)| *breach == kind).count();
    let counts: Value =
        BREACHES.map(|kind| (format!("{kind:?}").to_lowercase(), json!(of(kind)))).into_iter().collect();
    json!({ "breaches": counts })
}

/// Says what was wrong.
pub fn tell(breaches: &Breaches) {
    for kind in BREACHES {
        let of_kind: Vec<&str> =
            breaches.iter().filter(|(breach, _)| *breach == kind).map(|(_, what)| what.as_str()).collect();
        for what in of_kind.iter().take(TOLD) {
            say(&format!("{kind:?}: {what}"));
        }
        if of_kind.len() > TOLD {
            say(&format!("{kind:?}: and {} more", of_kind.len() - TOLD));
        }
    }
}

fn count(names: impl Iterator<Item = String>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// Median and maximum, of all and of each kind.
fn recovery(recoveries: &[(String, Duration)]) -> Value {
    let figures = |kind: Option<&str>| {
        let of_kind = recoveries.iter().filter(|(name, _)| kind.is_none_or(|kind| kind == name));
        let seconds: Vec<f64> = of_kind.map(|(_, time)| time.as_secs_f64()).collect();
        json!({ "n": seconds.len(), "p50": rounded(percentile(&seconds, 0.5)), "max": rounded(percentile(&seconds, 1.0)) })
    };
    let mut all: BTreeMap<&str, Value> =
        recoveries.iter().map(|(name, _)| (name.as_str(), figures(Some(name)))).collect();
    all.insert("all", figures(None));
    json!(all)
}
