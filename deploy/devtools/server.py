"""What the two servers have in common: where their data, port, process id and log are kept, starting and stopping.

A process is ours if its data directory stands in its arguments; nothing else is ever signalled.
"""

import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from .console import Problem, step
from .processes import end, is_running_with, last_lines, signals_held_back

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

    def __init__(self, home: Path, checkout: Path) -> None:
        self.home = home
        self.file = home / "state.json"
        self.values: Dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            self.values = json.loads(self.file.read_text())
        self.moved_from = self.values.get("checkout") if self.values.get("checkout") not in (None, str(checkout)) else None
        self.checkout = str(checkout)

    def put(self, key: str, value: Any) -> None:
        """Written whole and renamed, so that a reader never sees half of it."""
        self.values.update({"checkout": self.checkout, key: value})
        part = self.file.with_name("state.json.part")
        part.write_text(json.dumps(self.values, indent=1) + "\n")
        os.replace(part, self.file)


class Server:
    """One of them; the subclasses say how it is started, when it serves, and how it is asked to end."""

    name = ""
    title = ""
    own_pid_file = ""
    stop_signals: Sequence[Tuple[signal.Signals, float]] = ()

    def __init__(self, notes: Notes, given_url: Optional[str]) -> None:
        self.notes = notes
        self.home = notes.home
        self.log = self.home / "log" / f"{self.name}.log"
        self.pid_file = self.home / f"{self.name}.pid"
        self.borrowed = self.home / f"{self.name}.borrowed"
        # `eval "$(deploy/dev env)"` puts our own address into the environment: that is not a server from outside
        self.given_url = given_url if given_url and given_url != self._own_url() else None

    @property
    def port(self) -> Optional[int]:
        """The remembered port; none before the first start."""
        port = self.notes.values.get(f"{self.name}_port")
        return port if isinstance(port, int) else None

    @property
    def data(self) -> Path:
        """The data directory."""
        return Path(self.notes.values.get(f"{self.name}_data") or self.home / self.name)

    def _own_url(self) -> Optional[str]:
        return self.url_at(self.port) if self.port else None

    def url_at(self, port: int) -> str:
        """The address for clients."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts it and waits until it serves."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """The one given from outside, else our own."""
        url = self.given_url or self._own_url()
        if not url:
            raise Problem(f"{self.title} is not up. Start it: deploy/dev up")
        return url

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
        started = self.pid() is None
        if started and borrowed:
            self.borrowed.touch()
        if not borrowed:
            self.borrowed.unlink(missing_ok=True)
        try:
            self.start()
        except BaseException:
            # whatever ended the start (Ctrl-C too): a half-started server is of no use to anybody
            if started:
                with signals_held_back():
                    self.stop()
            raise

    def stop(self) -> bool:
        """Stops it if it is ours and runs. False if there was nothing to stop."""
        pid = self.pid()
        stopped = pid is not None
        if pid is not None and not end(pid, lambda: is_running_with(pid, str(self.data)), self.stop_signals):
            raise Problem(f"{self.title} (process {pid}) does not end, not even killed. See {self.log}")
        self.pid_file.unlink(missing_ok=True)
        self.borrowed.unlink(missing_ok=True)
        return stopped

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Asks `ready()` until it answers true; ends early if the process does."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self.pid() is None:
                raise Problem(f"{self.title} ended while starting. Its log: {self.log}", last_lines(self.log, 20))
            if time.monotonic() > deadline:
                raise Problem(f"{self.title} does not serve after {START_SECONDS} s. Its log: {self.log}",
                              last_lines(self.log, 20))
            time.sleep(0.05)
