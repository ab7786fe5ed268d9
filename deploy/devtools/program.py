"""ingest and relay while the demo runs them."""

import signal
import subprocess
from pathlib import Path
from typing import Dict, List, Optional

from .console import Problem, step
from .processes import end, last_lines, spawn

STOP_SECONDS = 15


class Program:
    """A running ingest or relay. Its end while it is needed is a problem, told with the end of its log."""

    def __init__(self, name: str, command: List[str], log: Path, env: Dict[str, str]) -> None:
        self.name = name
        self.log = log
        self.child: Optional["subprocess.Popen[bytes]"] = None
        self.command, self.env = command, env

    def start(self) -> None:
        """Output to its log."""
        spawn(self.command, self.log, self._note, env=self.env)

    def _note(self, child: "subprocess.Popen[bytes]") -> None:
        self.child = child

    def must_run(self) -> None:
        """Raises if it has ended."""
        code = self.child.poll() if self.child else None
        if code is not None:
            raise Problem(f"{self.name} ended with exit code {code}; the last lines of {self.log} are above",
                          last_lines(self.log, 20))

    def stop(self) -> bool:
        """SIGTERM, patience, SIGKILL. False if it had to be killed or ended with an error."""
        child = self.child
        if child is None or child.poll() is not None:
            return True
        step(f"stopping {self.name}")
        end(child.pid, lambda: child.poll() is None, [(signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5)])
        if child.returncode != 0:
            step(f"{self.name} did not end by itself: exit code {child.returncode}, see {self.log}")
        return child.returncode == 0
