//! The relay on real servers: Postgres and MongoDB of `deploy/dev test`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers too"
)]
#![allow(clippy::disallowed_methods, reason = "tests ask Postgres itself, not a pooler")]

mod apply;
mod bad_input;
mod blameless;
mod claims;
mod console;
mod correct;
mod crashes;
mod dead_letters;
mod debt_updates;
mod deployed;
mod end_to_end;
mod erase;
mod explain;
mod extraction_command;
mod extraction_crashes;
mod failover;
mod feed;
mod fetch;
mod fetch_crashes;
mod fleet;
mod hostile;
mod interleavings;
mod json_shapes;
mod least_privilege;
mod legacy;
mod mail_server;
mod maintenance;
mod model_server;
mod models;
mod notifications;
mod outages;
mod pause;
mod pgbouncer;
mod poison;
mod postgres_outages;
mod program;
mod protocol;
mod races;
mod reconcile;
mod replay;
mod restore;
mod review;
mod rolling;
mod secrets;
mod shadow;
mod status;
mod suspicion;
mod taxonomy;
mod telemetry;
mod tls;
mod turns;
mod upgrade;
mod world;
