//! Ingest and relay as processes: started, ended, stopped, and looked after as systemd would.

use crate::schedule::Program;
use anyhow::{Context as _, anyhow};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// From SIGTERM to the end: the programs' own limits are shorter.
const STOP: Duration = Duration::from_secs(45);

/// One process, or the place of one.
#[derive(Debug)]
pub struct Process {
    /// Which.
    pub program: Program,
    executable: PathBuf,
    environment: Vec<(String, String)>,
    /// Of all its lives.
    pub log: PathBuf,
    child: Option<Child>,
    /// When SIGTERM has asked it to end.
    asked_to_stop: Option<Instant>,
}

impl Process {
    /// Not yet started.
    #[must_use]
    pub fn new(
        program: Program,
        executable: PathBuf,
        environment: Vec<(String, String)>,
        folder: &Path,
    ) -> Process {
        let name = match program {
            Program::Ingest(index) => format!("ingest-{index}.log"),
            Program::Relay(index) => format!("relay-{index}.log"),
        };
        Process { program, executable, environment, log: folder.join(name), child: None, asked_to_stop: None }
    }

    /// Starts it; its log goes on where it was.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let verb = match self.program {
            Program::Ingest(_) => "serve",
            Program::Relay(_) => "run",
        };
        let child = Command::new(&self.executable)
            .arg(verb)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.with_context(|| self.executable.display().to_string())?);
        self.asked_to_stop = None;
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill(); // it may have ended by itself
            let _ = child.wait();
        }
    }

    /// SIGTERM.
    pub fn stop(&mut self) {
        self.asked_to_stop = Some(Instant::now());
        self.signal("TERM");
    }

    /// How it has ended since it was asked to: an error unless in time and well. None = not yet.
    pub fn stopped(&mut self) -> Option<anyhow::Result<()>> {
        let asked = self.asked_to_stop?;
        let status = match self.child.as_mut()?.try_wait() {
            Ok(Some(status)) => status,
            Ok(None) if asked.elapsed() > STOP => {
                self.kill();
                return Some(Err(anyhow!(
                    "{:?} has not ended {} s after SIGTERM",
                    self.program,
                    STOP.as_secs()
                )));
            }
            Ok(None) => return None,
            Err(error) => return Some(Err(error.into())),
        };
        let well = status
            .success()
            .then_some(())
            .with_context(|| format!("{:?} ended with {status} after SIGTERM", self.program));
        Some(well)
    }

    /// A signal.
    pub fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            let _ = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
        }
    }

    /// How it has ended, though nobody has asked it to.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.asked_to_stop.is_some() {
            return None;
        }
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    /// Its memory in MiB and its open files.
    #[must_use]
    pub fn holds(&self) -> Option<(f64, usize)> {
        let pid = self.child.as_ref()?.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?
            .trim()
            .split(' ')
            .next()?
            .parse::<f64>()
            .ok()?;
        Some((kib / 1024.0, fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
