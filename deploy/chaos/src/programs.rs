//! Ingest and relay as processes: started, ended, stopped, and looked after as systemd would.

use crate::schedule::Program;
use anyhow::{Context as _, bail};
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
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Not yet started.
    #[must_use]
    pub fn new(program: Program, executable: PathBuf, environment: Vec<(String, String)>, folder: &Path) -> Process {
        let name = match program {
            Program::Ingest(index) => format!("ingest-{index}.log"),
            Program::Relay(index) => format!("relay-{index}.log"),
        };
        Process { program, executable, environment, log: folder.join(name), child: None }
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
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill(); // it may have ended by itself
            let _ = child.wait();
        }
    }

    /// Waits for the end that SIGTERM has asked for; an error unless it ends in time and well.
    pub fn has_stopped(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let deadline = Instant::now() + STOP;
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{:?} ended with {status} after SIGTERM", self.program),
                None if Instant::now() > deadline => {
                    self.child = Some(child);
                    self.kill();
                    bail!("{:?} has not ended {} s after SIGTERM", self.program, STOP.as_secs());
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Any other signal.
    pub fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            let _ = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
        }
    }

    /// How it has ended, though nobody has asked it to.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    /// Its memory in MiB and its open files.
    #[must_use]
    pub fn holds(&self) -> Option<(f64, usize)> {
        let pid = self.child.as_ref()?.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().split(' ').next()?.parse::<f64>().ok()?;
        Some((kib / 1024.0, fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
