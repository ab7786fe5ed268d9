//! `relay`: carries the messages of the Postgres outbox to their effect.
//!
//! A message's way, top to bottom: [`lane`] wakes and claims through [`outbox`], [`operations`] applies it (reading a mail with
//! [`mail_text`] and [`extraction`]; a debt update with [`matching`], [`write_guard`] and [`mongo`]), and [`outbox`] finishes it in
//! one statement together with [`ledger`]. [`outcome`] says what follows from a failure, [`breaker`] what from an outage,
//! [`telemetry`] what is measured.

pub mod apply;
pub mod audit;
pub mod board;
pub mod breaker;
pub mod cli;
pub mod client;
pub mod config;
pub mod console;
pub mod context;
pub mod correct;
pub mod current_update;
pub mod dead_letters;
pub mod debt_update;
pub mod erase;
pub mod explain;
pub mod extraction;
pub mod heartbeat;
pub mod lane;
pub mod ledger;
pub mod legacy;
pub mod letters;
pub mod mail_text;
pub mod maintenance;
pub mod matching;
pub mod mode;
pub mod mongo;
pub mod operations;
pub mod operator;
pub mod outbox;
pub mod outcome;
pub mod pauses;
mod reading;
pub mod reconcile;
pub mod relay;
pub mod replay;
pub mod resend;
pub mod review;
pub mod review_mails;
pub mod smtp;
pub mod status;
pub mod telemetry;
pub mod turns;
pub mod wake;
pub mod workers;
pub mod write_guard;
