"""Postgres of this checkout."""

import contextlib
import hashlib
import os
import pwd
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional

from . import installed
from .console import Problem, step
from .processes import output_of, spawn, succeeds
from .server import Server


def postgres_env() -> Dict[str, str]:
    """Without PG*: a PGSERVICE or PGSSLMODE of the user's is meant for another server. Messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C", "PGCONNECT_TIMEOUT": "3"}


class Postgres(Server):
    """Durable as in production (fsync and synchronous_commit on), reachable on 127.0.0.1 only."""

    name = "postgres"
    title = "Postgres"
    own_pid_file = "postmaster.pid"
    # fast shutdown, then immediate, then by force
    stop_signals = [(signal.SIGINT, 30), (signal.SIGQUIT, 10), (signal.SIGKILL, 5)]

    def url_at(self, port: int) -> str:
        return f"postgres://postgres@127.0.0.1:{port}/outbox"

    def start(self) -> None:
        folder, major = installed.find_postgres(self._data_major())
        user = self._user()
        if self.pid() is None:
            if self._data_major() is None:
                self._create_data(folder, user)
            port = self.choose_port()
            step(f"starting Postgres {major} on port {port}")
            settings = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200",
                        "fsync=on", "synchronous_commit=on", "full_page_writes=on", "logging_collector=off"]
            spawn([os.path.join(folder, "postgres"), "-D", str(self.data), *(a for s in settings for a in ("-c", s))],
                  self.log, lambda child: self.note_pid(child.pid), env=postgres_env(), user=user, cwd=str(self.data))
        psql = [os.path.join(folder, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d",
                f"postgres://postgres@127.0.0.1:{self.port}/postgres", "-c"]
        self.wait_until(lambda: self._answers(psql))
        if not output_of([*psql, "select 1 from pg_database where datname = 'outbox'"], 20, env=postgres_env()).strip():
            output_of([*psql, "create database outbox"], 60, env=postgres_env())

    @staticmethod
    def _answers(psql: List[str]) -> bool:
        with contextlib.suppress(Problem):
            output_of([*psql, "select 1"], 5, env=postgres_env())
            return True
        return False

    def _data_major(self) -> Optional[int]:
        # a directory that this user may not read (root made it) has to be an error, not "no data yet"
        with contextlib.suppress(FileNotFoundError):
            return int((self.data / "PG_VERSION").read_text().split(".")[0])
        return None

    @staticmethod
    def _user() -> Dict[str, Any]:
        """Postgres refuses to run as root: then it is `postgres`, or `nobody` where there is no such user."""
        if os.geteuid() != 0:
            return {}
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        raise Problem("Postgres refuses to run as root, and there is neither a user postgres nor nobody here. Run deploy/dev "
                      "as a plain user")

    def _create_data(self, folder: str, user: Dict[str, Any]) -> None:
        step("creating the Postgres data directory")
        parent = self._reachable_parent(user)
        part = parent / "postgres.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        if user:
            os.chown(part, user["user"], user["group"])
        try:
            output_of([os.path.join(folder, "initdb"), "-D", str(part), "-U", "postgres", "-E", "UTF8", "--no-locale",
                       "--auth=trust"], 180, env=postgres_env(), user=user, cwd=str(part))
            # renamed last: an interrupted initdb must not look like a finished one
            os.replace(part, parent / "postgres")
        finally:
            shutil.rmtree(part, ignore_errors=True)
        self.notes.put("postgres_data", None if parent == self.home else str(parent / "postgres"))

    def _reachable_parent(self, user: Dict[str, Any]) -> Path:
        """target/dev, unless the other user cannot get there (a checkout under /root): then a folder of /var/tmp."""
        if not user or succeeds([shutil.which("test") or "/usr/bin/test", "-x", str(self.home)], user=user):
            return self.home
        key = hashlib.sha256(self.notes.checkout.encode()).hexdigest()[:12]
        parent = Path("/var/tmp") / f"outbox-dev-{key}"
        with contextlib.suppress(FileExistsError):
            parent.mkdir(mode=0o711)
        # anybody may create names in /var/tmp: one that is not ours is not used
        if parent.is_symlink() or parent.stat().st_uid != 0 or (parent / "postgres").exists():
            parent = Path(tempfile.mkdtemp(prefix=f"outbox-dev-{key}-", dir="/var/tmp"))
        parent.chmod(0o711)
        step(f"the user of Postgres cannot reach {self.home}: its data goes to {parent}")
        return parent
