"""What the person at the terminal sees, and processes that are started and ended without losing one.

Steps go to stderr, so that stdout carries only results. A signal never falls between the start of a process and the note of
its id, and only the first one raises: the clean-up that follows is not disturbed by a second.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

STARTED = time.monotonic()


class Problem(Exception):
    """Something that stops the command. The text says what, where, and what to do about it."""

    def __init__(self, what: str, log: Optional[List[str]] = None, exit_code: int = 1) -> None:
        super().__init__(what)
        self.log, self.exit_code = log or [], exit_code

    def show(self) -> None:
        """The lines of a log first, the sentence that matters last, where the eye is."""
        for line in self.log:
            print(f"    {line}", file=sys.stderr)
        print(f"deploy/dev: {self}", file=sys.stderr, flush=True)


def step(text: str) -> None:
    """One line: seconds since the start, then what happens now."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)


_held_back = False
_pending: Optional[int] = None


def _on_signal(number: int, _frame: object) -> None:
    global _held_back, _pending
    if _held_back:
        _pending = number
    else:
        _held_back = True
        raise KeyboardInterrupt(number)


def install_signal_handlers() -> None:
    """SIGHUP stays ignored under nohup; SIGINT is caught even where a background shell had it ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_signal)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """For a start with the note of its process id, and for clean-up: a signal waits until the block ends."""
    global _held_back
    before, _held_back = _held_back, True
    try:
        yield
    finally:
        _held_back = before
        if _pending is not None and not before:
            _on_signal(_pending, None)


def output_of(
    command: Sequence[str],
    timeout_seconds: float,
    env: Optional[Mapping[str, str]] = None,
    user: Optional[Dict[str, Any]] = None,
    what_to_do: str = "",
) -> str:
    """Runs a short command to its end and returns its stdout; a failure is a Problem with the lines it printed."""
    # the words before the first option: what follows may hold an address with a password
    name = " ".join(itertools.takewhile(lambda word: not word.startswith("-"), [os.path.basename(command[0]), *command[1:]]))
    try:
        done = subprocess.run(list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
                              env=env, timeout=timeout_seconds, start_new_session=True, **(user or {}))
    except subprocess.TimeoutExpired as late:
        raise Problem(f"{name}: not done after {timeout_seconds:.0f} s. {what_to_do}".strip()) from late
    except OSError as error:
        raise Problem(f"{name}: cannot be started: {error}. {what_to_do}".strip()) from error
    if done.returncode != 0:
        printed = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
        raise Problem(f"{name}: exit code {done.returncode}. {what_to_do}".strip(), printed[-20:])
    return done.stdout.decode("utf-8", "replace")


def spawn(
    command: Sequence[str],
    log: Path,
    note: Callable[["subprocess.Popen[bytes]"], object],
    env: Optional[Mapping[str, str]] = None,
    user: Optional[Dict[str, Any]] = None,
) -> None:
    """Starts a long-running process in its own session, output to `log` (the run before is kept as .1), and notes it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        os.replace(log, log.with_name(log.name + ".1"))
    with undisturbed(), open(log, "wb") as out:
        try:
            note(subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd="/",
                                  env=env, start_new_session=True, **(user or {})))
        except OSError as error:
            raise Problem(f"{command[0]}: cannot be started: {error}") from error


def is_running_with(pid: int, argument: str) -> bool:
    """Whether this process is alive and was started with this argument (a data directory tells whose it is)."""
    try:
        return argument in Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return False


def end(pid: int, still_runs: Callable[[], bool], signals: Sequence[Tuple[signal.Signals, float]]) -> bool:
    """Sends the signals one after the other, each with its patience in seconds, until it is gone."""
    for number, patience_seconds in signals:
        if not still_runs():
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience_seconds
        while still_runs() and time.monotonic() < deadline:
            time.sleep(0.02)
    return not still_runs()


def run_in_session(
    command: Sequence[str], cwd: Path, timeout_seconds: float, env: Optional[Mapping[str, str]] = None,
    stdout: Optional[int] = None,
) -> Tuple[int, bytes]:
    """Runs a program that starts others (cargo): exit code and, with PIPE, stdout. However it ends, so does all it started."""
    child: "Optional[subprocess.Popen[bytes]]" = None
    try:
        with undisturbed():
            child = subprocess.Popen(list(command), cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stdout,
                                     start_new_session=True)
        printed, _ = child.communicate(timeout=timeout_seconds)
        return child.returncode, printed
    except subprocess.TimeoutExpired:
        raise Problem(f"{' '.join(command[:2])}: not done after {timeout_seconds:.0f} s") from None
    finally:
        with undisturbed():
            if child:
                _end_session(child)


def _end_session(first: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(first.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        first.wait(20)
    # test runners give every test a process group of its own: the session holds them all
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(entry.name)) == first.pid:
                os.kill(int(entry.name), signal.SIGKILL)
    first.wait()


def last_lines(log: Path, count: int) -> List[str]:
    """The end of a log, read without holding a large file in memory."""
    try:
        with open(log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 64 * 1024))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except OSError:
        return []
