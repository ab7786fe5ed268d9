"""Postgres and MongoDB private to this checkout: data, ports, process ids and logs live in target/dev.

A server given from outside (DATABASE_URL, MONGODB_URL) is used as it is, neither started nor stopped. Servers that a test
or demo run started are marked as borrowed; the last run that used them stops them. `up` takes the mark off.
"""

import contextlib
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import IO, Iterator, List

from .console import Problem, step
from .mongod import Mongod
from .postgres import Postgres
from .processes import signals_held_back
from .server import Notes, Server


class Servers:
    """Both, and the locks: one deploy/dev at a time starts or stops; a run that uses them says so."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.home = checkout / "target" / "dev"
        notes = Notes(self.home, checkout)
        self.moved_from = notes.moved_from
        self.postgres = Postgres(notes, os.environ.get("DATABASE_URL"))
        self.mongod = Mongod(notes, os.environ.get("MONGODB_URL"))
        self.notes = notes

    @property
    def both(self) -> List[Server]:
        """In the order of their start."""
        return [self.postgres, self.mongod]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One deploy/dev of this checkout at a time; the notes are read again, the one before may have changed them."""
        self.home.mkdir(parents=True, exist_ok=True)
        with open(self.home / "lock", "a") as file:
            _lock(file)
            moved_from = self.moved_from
            self.__init__(self.checkout)  # type: ignore[misc]
            if moved_from:
                self._leave_copied_data(moved_from)
            yield

    def _leave_copied_data(self, moved_from: str) -> None:
        """target/ was copied along with the checkout: the data may be a copy of running servers and the ports are theirs."""
        step(f"target/dev comes from {moved_from}: starting here with empty databases")
        self.notes.values = {}
        for server in self.both:
            shutil.rmtree(self.home / server.name, ignore_errors=True)
            for note in (server.pid_file, server.borrowed):
                note.unlink(missing_ok=True)
        self.notes.put("checkout", str(self.checkout))
        self.__init__(self.checkout)  # type: ignore[misc]

    def up(self, borrowed: bool = False) -> None:
        """Starts what does not run."""
        with self.locked():
            for server in self.both:
                server.up(borrowed)

    def down(self) -> None:
        """Stops what runs, whoever uses it."""
        with self.locked():
            for server in self.both:
                if server.given_url:
                    continue
                step(f"{server.title} stopped" if server.stop() else f"{server.title} was not running")

    @contextlib.contextmanager
    def in_use(self, quiet: bool) -> Iterator[None]:
        """Servers up for the block. At its end those are stopped that runs like this one started, by the last of them."""
        self.home.mkdir(parents=True, exist_ok=True)
        with open(self.home / "in-use", "a") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            try:
                self.up(borrowed=True)
                yield
            finally:
                with signals_held_back(deliver=False):
                    self._give_back(file, quiet)

    def _give_back(self, file: IO[str], quiet: bool) -> None:
        with self.locked():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            for server in self.both:
                if not server.given_url and server.borrowed.exists() and server.stop() and not quiet:
                    step(f"{server.title} stopped")

    def running_or_problem(self) -> None:
        """For `env`: an address that nobody listens on helps nobody."""
        for server in self.both:
            if not server.given_url and server.pid() is None:
                raise Problem(f"{server.title} is not up. Start it: deploy/dev up")


def _lock(file: IO[str]) -> None:
    """Ten minutes: as long as the other one may need to fetch and start its servers."""
    deadline = time.monotonic() + 600
    waiting = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if not waiting:
                step("waiting for another deploy/dev of this checkout")
                waiting = True
            if time.monotonic() > deadline:
                raise Problem(f"another deploy/dev has held {file.name} for ten minutes. End it and try again") from None
            time.sleep(0.1)
