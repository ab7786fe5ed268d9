//! What both programs need.
//!
//! - [`money`]: exact amounts

pub mod money;
