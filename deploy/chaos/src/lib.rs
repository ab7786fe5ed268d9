//! `deploy/dev chaos`: real programs and servers under load and seeded faults, and then a checker that compares every 200 with
//! Postgres and MongoDB.
//!
//! From top to bottom: [`run`] is one run; [`stage`] starts everything; [`senders`] are the clients, with the [`delivery`] that the
//! seed makes, about the entries of [`stock`]; [`schedule`] says which fault strikes when; [`backlog`] watches, and [`soak`] what
//! programs and tables hold meanwhile; [`evidence`] gathers what is left, [`checker`] judges it, and [`report`] prints it.

#![allow(clippy::disallowed_methods, reason = "the checker asks Postgres itself, not a pooler")]

pub mod backlog;
pub mod checker;
pub mod delivery;
pub mod evidence;
pub mod exchange;
pub mod programs;
pub mod report;
pub mod run;
pub mod schedule;
pub mod senders;
pub mod soak;
pub mod stage;
pub mod stock;
