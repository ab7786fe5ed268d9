//! The relay on real servers: Postgres and MongoDB of `deploy/dev test`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers too"
)]

mod claims;
mod debt_updates;
mod end_to_end;
mod interleavings;
mod maintenance;
mod outages;
mod program;
mod races;
mod review;
mod world;
