"""The servers of this checkout: data, ports, process ids and logs live in target/dev; one deploy/dev at a time starts or stops.

A server given from outside (DATABASE_URL, MONGODB_URL) is neither started nor stopped. A process is ours if its data
directory stands in its arguments; nothing else is ever signalled. What `run` or `test` starts is marked as borrowed and
stopped at its end, unless `up` has taken the mark off meanwhile.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import IO, Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from .processes import Problem, end, is_running_with, last_lines, step, undisturbed

START_SECONDS = 60


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a listener could have it."""
    with socket.socket() as probe:
        # as servers do: connections of a listener that has just ended must not count
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


class Notes:
    """target/dev/state.json: what was chosen at the first start and has to stay."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.home = checkout / "target" / "dev"
        self.values: Dict[str, Any] = {}
        self.read()
        other = self.values.get("checkout", str(checkout))
        if other != str(checkout):
            raise Problem(f"{self.home} was made for the checkout {other}: this one was copied or moved. Stop the servers there "
                          f"(deploy/dev down), remove {self.home} here and try again")

    def read(self) -> None:
        """Again after a wait: another deploy/dev may have changed them."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            self.values = json.loads((self.home / "state.json").read_text())

    def put(self, key: str, value: Any) -> None:
        """Written whole and renamed, so that a reader never sees half of it."""
        self.values.update({"checkout": str(self.checkout), key: value})
        part = self.home / "state.json.part"
        part.write_text(json.dumps(self.values, indent=1) + "\n")
        os.replace(part, self.home / "state.json")


class Server:
    """One of them; the subclasses say how it is started, when it serves, and how it is asked to end."""

    name = ""
    title = ""
    own_pid_file = ""
    stop_signals: Sequence[Tuple[signal.Signals, float]] = ()

    def __init__(self, notes: Notes, url_variable: str) -> None:
        self.notes = notes
        self.home = notes.home
        self.log = self.home / "log" / f"{self.name}.log"
        self.pid_file = self.home / f"{self.name}.pid"
        self.borrowed = self.home / f"{self.name}.borrowed"
        # `eval "$(deploy/dev env)"` puts our own address into the environment: that is not a server from outside
        given = os.environ.get(url_variable)
        self.given_url = given if given and not (self.port and given == self.url_at(self.port)) else None

    @property
    def port(self) -> Optional[int]:
        """The remembered port; none before the first start."""
        return self.notes.values.get(f"{self.name}_port")

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.home / self.name

    def url_at(self, port: int) -> str:
        """The address for clients."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts the process."""
        raise NotImplementedError

    def serves(self) -> bool:
        """Whether it does what it is for."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """The one given from outside, else our own."""
        if not self.given_url and not (self.port and self.pid()):
            raise Problem(f"{self.title} is not up. Start it: deploy/dev up")
        return self.given_url or self.url_at(self.port or 0)

    def pid(self) -> Optional[int]:
        """Our process, if it runs. The server's own note helps where ours was lost with target/."""
        for note in (self.pid_file, self.data / self.own_pid_file):
            with contextlib.suppress(OSError, ValueError, IndexError):
                pid = int(note.read_text().split()[0])
                if is_running_with(pid, str(self.data)):
                    return pid
        return None

    def note_pid(self, pid: int) -> None:
        """For `pid`, also of a later deploy/dev."""
        self.pid_file.write_text(f"{pid}\n")

    def choose_port(self) -> int:
        """The remembered one, as long as nobody else has taken it."""
        port = self.port
        if port is None or not port_is_free(port):
            port = free_port()
            self.notes.put(f"{self.name}_port", port)
        return port

    def up(self, borrowed: bool) -> None:
        """Makes it serve, whatever state it was in."""
        if self.given_url:
            step(f"{self.title}: using the one given by the environment")
            return
        if not self.port:
            # target/dev was removed under a running server: nobody knows its port any more
            self.stop()
        found = self.pid() is not None
        if not borrowed:
            self.borrowed.unlink(missing_ok=True)
        elif not found:
            self.borrowed.touch()
        if not found:
            self.start()
        self._wait_until_it_serves()

    def _wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.serves():
            what = "ended while starting" if self.pid() is None else f"does not serve after {START_SECONDS} s"
            if self.pid() is None or time.monotonic() > deadline:
                raise Problem(f"{self.title} {what}. Its log: {self.log}", last_lines(self.log, 20))
            time.sleep(0.05)

    def stop(self) -> bool:
        """Stops it if it is ours and runs. False if there was nothing to stop."""
        pid = self.pid()
        if pid is not None and not end(pid, lambda: is_running_with(pid, str(self.data)), self.stop_signals):
            raise Problem(f"{self.title} (process {pid}) does not end, not even killed. See {self.log}")
        self.pid_file.unlink(missing_ok=True)
        self.borrowed.unlink(missing_ok=True)
        return pid is not None


class Servers:
    """All of them, and the two locks: `lock` while servers start or stop, `run` as long as a run or test goes on."""

    def __init__(self, notes: Notes, servers: List[Server]) -> None:
        self.notes, self.all = notes, servers

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._opened("lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                step("waiting for another deploy/dev of this checkout")
                fcntl.flock(file, fcntl.LOCK_EX)
            self.notes.read()
            yield

    def _opened(self, name: str) -> IO[str]:
        self.notes.home.mkdir(parents=True, exist_ok=True)
        return open(self.notes.home / name, "a+")

    def up(self, borrowed: bool = False) -> None:
        """Starts what does not run."""
        with self._locked():
            not_running = [server for server in self.all if not server.given_url and server.pid() is None]
            try:
                for server in self.all:
                    server.up(borrowed)
            except BaseException:
                # whatever ended the start (Ctrl-C too): half of the servers are of no use to anybody
                with undisturbed():
                    for server in not_running:
                        server.stop()
                raise

    def down(self, only_borrowed: bool = False, quiet: bool = False) -> None:
        """Stops what runs."""
        with self._locked():
            for server in self.all:
                if server.given_url or (only_borrowed and not server.borrowed.exists()):
                    continue
                text = "stopped" if server.stop() else "was not running"
                if not quiet:
                    step(f"{server.title} {text}")

    @contextlib.contextmanager
    def in_use(self, quiet: bool) -> Iterator[None]:
        """Servers up for the block, which runs alone in this checkout. At its end those that were started for it are stopped."""
        with self._opened("run") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Problem("a deploy/dev run or test is going on in this checkout. End it first, or wait") from None
            try:
                self.up(borrowed=True)
                yield
            finally:
                with undisturbed():
                    self.down(only_borrowed=True, quiet=quiet)
