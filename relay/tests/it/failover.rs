//! A replica set of three whose primary goes: what was acknowledged stays, what was not is written again.

use crate::{
    fleet::{self, Fleet},
    outages::until,
};
use mongodb::bson::{Document, doc};
use testkit::{Mongod, ReplicaSet};

/// Whether the member itself holds the amount of the fleet in every entry.
async fn holds(member: &Mongod, fleet: &Fleet) -> bool {
    let clients = member.client().database(&fleet.world.mongo.name).collection::<Document>("clients");
    let missing = doc! { "$elemMatch": { "current_debt_amount": { "$ne": fleet.amount() } } };
    let filter = doc! { "aktenzeichen": "2024_118", "final_creditor_list": { "$not": missing } };
    clients.find_one(filter).await.is_ok_and(|client| client.is_some())
}

async fn replicate(member: &Mongod, mode: &str) {
    member.admin(doc! { "configureFailPoint": "stopReplProducer", "mode": mode }).await;
}

/// The primary carries an update that nobody copies, and dies; the others elect one of them, which has never seen it.
async fn with_a_primary_that_dies_alone(is_given_back_before: bool) {
    let mut set = ReplicaSet::new(3).await;
    let mut fleets = Fleet::one_and_two(&set.url).await;
    for member in &set.members {
        replicate(member, "alwaysOn").await; // the fail point: from now on nobody copies anything from anybody
    }
    fleet::commit(&mut fleets).await;
    let primary = set.primary().await;
    for fleet in &fleets {
        until(|| holds(&set.members[primary], fleet)).await;
        if is_given_back_before {
            fleet.says("MongoDB unreachable since 20").await;
        }
    }
    // To the disk, else the update would not outlive the process and nobody would have to take it back.
    set.members[primary].admin(doc! { "fsync": 1 }).await;
    set.members[primary].kill();
    for (_, member) in set.members.iter().enumerate().filter(|(index, _)| *index != primary) {
        replicate(member, "off").await;
    }
    fleet::all_applied(&mut fleets).await;

    set.members[primary].start().await;
    until(|| async { set.members[primary].has_rolled_back() }).await;
    for member in &set.members {
        for fleet in &fleets {
            until(|| holds(member, fleet)).await;
        }
    }
    fleet::all_applied(&mut fleets).await;
}

/// The reason for the write concern: an acknowledgement by the primary alone would have ended the messages.
#[tokio::test]
async fn an_update_that_died_with_its_primary_is_written_again() {
    with_a_primary_that_dies_alone(false).await;
}

/// The reason for the read concern: a relay that saw its own update on the primary would have ended the messages.
#[tokio::test]
async fn an_update_that_only_the_primary_had_for_long_is_not_taken_for_done() {
    with_a_primary_that_dies_alone(true).await;
}

#[tokio::test]
async fn messages_outlast_primaries_that_step_down_one_after_the_other() {
    let set = ReplicaSet::new(3).await;
    let mut fleets = Fleet::one_and_two(&set.url).await;
    for _ in 0..3 {
        fleet::commit(&mut fleets).await;
        let primary = set.primary().await;
        // Short, so that the next one finds somebody to give way to.
        set.members[primary]
            .admin(doc! { "replSetStepDown": 3, "secondaryCatchUpPeriodSecs": 2, "force": true })
            .await;
        fleet::commit(&mut fleets).await;
    }
    fleet::all_applied(&mut fleets).await;
}

#[tokio::test]
async fn messages_outlast_a_primary_that_freezes_and_wakes_up_deposed() {
    let set = ReplicaSet::new(3).await;
    let mut fleets = Fleet::one_and_two(&set.url).await;
    let deposed = set.primary().await;
    fleet::commit(&mut fleets).await;
    set.members[deposed].freeze();
    fleet::commit(&mut fleets).await;
    fleet::all_applied(&mut fleets).await;
    set.members[deposed].thaw();
    fleet::commit(&mut fleets).await;
    fleet::all_applied(&mut fleets).await;
    for fleet in &fleets {
        until(|| holds(&set.members[deposed], fleet)).await;
    }
}
