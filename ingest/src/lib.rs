//! `ingest`: request -> one commit. Never talks to MongoDB, to a language model or to a mail server.
//!
//! A request goes from top to bottom:
//!
//! - [`server`]: listeners, readiness, drain; [`endpoint`]: paths; [`api`]: request -> response
//! - [`request_body`]: the bytes, within bounds; [`source`] and [`shared::bearer`]: who sent them, with the secrets of [`access`]
//! - [`json_body`], [`received_at`], [`email`], [`debt_update`]: what they say
//! - [`request_key`]: which delivery they are
//! - [`store`]: the way to Postgres; [`group_commit`]: many requests, one commit; [`commit`]: THE transaction; [`database`]: the pool;
//!   [`poke`]: wakes the relays after it
//! - [`status`]: where a mail stands; [`openapi`]: the interface; [`problem`], [`problem_pages`]: every failure that a client can see
//! - [`request_trace`]: what a request is called; [`telemetry`]: what is counted and logged of it
//! - [`cli`], [`config`]: the command line

pub mod access;
pub mod api;
pub mod cli;
pub mod commit;
pub mod config;
pub mod database;
pub mod debt_update;
pub mod email;
pub mod endpoint;
pub mod group_commit;
pub mod json_body;
pub mod openapi;
pub mod poke;
pub mod problem;
pub mod problem_pages;
pub mod received_at;
pub mod request_body;
pub mod request_key;
pub mod request_trace;
pub mod server;
pub mod source;
pub mod status;
pub mod store;
pub mod telemetry;

pub use server::start;
