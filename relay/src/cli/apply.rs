//! stub
use crate::config::Settings;
use clap::Args;
use std::process::ExitCode;
#[derive(Debug, Args)]
pub(super) struct Apply {}
impl Apply {
    pub(super) async fn run(&self, _json: bool, _settings: &Settings) -> anyhow::Result<ExitCode> {
        Ok(ExitCode::SUCCESS)
    }
}
