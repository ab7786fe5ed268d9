//! A file system of a test's own, to run full: a tmpfs, which only root may mount.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Unmounted with this value.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    mib: u32,
}

impl SmallDisk {
    /// On an empty folder; None where that is not allowed.
    #[must_use]
    pub fn mount(path: &Path, mib: u32) -> Option<SmallDisk> {
        let options = format!("size={mib}m,mode=0700");
        let mounted = run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs"], path);
        mounted.then(|| SmallDisk { path: path.to_owned(), mib })
    }

    /// Leaves hardly a free byte until [`SmallDisk::empty`].
    ///
    /// A tmpfs refuses a limit below what is used: what is written between the look and the limit makes it look again, and allow
    /// for more.
    pub fn fill(&self) {
        let filled = (0..200).any(|more| self.resize(&format!("{}k", self.used_kib() + 64 * more)));
        assert!(filled, "a tmpfs can be made smaller");
    }

    fn used_kib(&self) -> u64 {
        let output = Command::new("df").args(["-k", "--output=used"]).arg(&self.path).output();
        let output = output.expect("df tells what is used");
        let used = String::from_utf8_lossy(&output.stdout);
        used.lines().last().and_then(|line| line.trim().parse().ok()).expect("df tells what is used")
    }

    /// As large as it was.
    pub fn empty(&self) {
        assert!(self.resize(&format!("{}m", self.mib)), "a tmpfs can be made larger");
    }

    fn resize(&self, size: &str) -> bool {
        run("mount", &["-o", &format!("remount,size={size}")], &self.path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // lazily: a process of the test may still have a file open
        run("umount", &["-l"], &self.path);
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    let status = Command::new(program).args(arguments).arg(path).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
