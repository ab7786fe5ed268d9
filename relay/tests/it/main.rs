//! The relay on real servers: Postgres and MongoDB of `deploy/dev test`.

mod claims;
mod debt_updates;
mod end_to_end;
mod outages;
mod program;
mod races;
mod review;
mod world;
