"""Starting and ending processes without losing one: every process gets its own session, a signal never falls between a
start and the note of its process id, and nothing is signalled before it is known to be the process that was started.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from .console import Problem


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM or a closed terminal. Not an Exception, so that no handler for errors swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


_held_back = 0
_pending: Optional[int] = None


def _on_signal(number: int, _frame: object) -> None:
    global _pending
    if _held_back:
        _pending = number
    else:
        raise Interrupted(number)


def install_signal_handlers() -> None:
    """SIGHUP stays ignored under nohup; SIGINT is caught even where a background shell had it ignored."""
    signal.signal(signal.SIGINT, _on_signal)
    signal.signal(signal.SIGTERM, _on_signal)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _on_signal)


@contextlib.contextmanager
def signals_held_back(deliver: bool = True) -> Iterator[None]:
    """For a start with the note of its process id, and for clean-up: a signal waits until the block ends.

    With deliver=False it is dropped there: whoever cleans up is ending anyway.
    """
    global _held_back, _pending
    _held_back += 1
    try:
        yield
    finally:
        _held_back -= 1
        if _held_back == 0 and _pending is not None:
            number, _pending = _pending, None
            if deliver:
                raise Interrupted(number)


def output_of(
    command: Sequence[str],
    timeout_seconds: float,
    env: Optional[Mapping[str, str]] = None,
    user: Optional[Dict[str, Any]] = None,
    what_to_do: str = "",
    cwd: str = "/",
) -> str:
    """Runs a short command to its end and returns its stdout; a failure is a Problem with the lines it printed."""
    # the words before the first option: what follows may hold an address with a password
    name = " ".join(itertools.takewhile(lambda word: not word.startswith("-"), [os.path.basename(command[0]), *command[1:]]))
    try:
        done: "subprocess.CompletedProcess[bytes]" = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd,
            env=dict(env) if env is not None else None, timeout=timeout_seconds, start_new_session=True, **(user or {}),
        )
    except subprocess.TimeoutExpired as late:
        raise Problem(f"{name}: not done after {timeout_seconds:.0f} s. {what_to_do}".strip()) from late
    except OSError as error:
        raise Problem(f"{name}: cannot be started: {error}. {what_to_do}".strip()) from error
    if done.returncode != 0:
        printed = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
        raise Problem(f"{name}: exit code {done.returncode}. {what_to_do}".strip(), printed[-20:])
    return done.stdout.decode("utf-8", "replace")


def succeeds(command: Sequence[str], user: Optional[Dict[str, Any]] = None) -> bool:
    """For a question that a program answers by its exit code."""
    try:
        output_of(command, 10, user=user)
    except Problem:
        return False
    return True


def spawn(
    command: Sequence[str],
    log: Path,
    note: Callable[["subprocess.Popen[bytes]"], None],
    env: Optional[Mapping[str, str]] = None,
    user: Optional[Dict[str, Any]] = None,
    cwd: str = "/",
) -> "subprocess.Popen[bytes]":
    """Starts a long-running process in its own session, output to `log` (the run before is kept as .1), and notes it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        os.replace(log, log.with_name(log.name + ".1"))
    with signals_held_back():
        with open(log, "wb") as out:
            try:
                child = subprocess.Popen(
                    list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=cwd,
                    env=dict(env) if env is not None else None, start_new_session=True, **(user or {}),
                )
            except OSError as error:
                raise Problem(f"{command[0]}: cannot be started: {error}") from error
        note(child)
    return child


def command_line(pid: int) -> List[str]:
    """The arguments of a running process; empty if there is none, or only its zombie."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        if Path("/proc/self").exists():
            return []
    shown = subprocess.run(
        ["ps", "-ww", "-o", "stat=,args=", "-p", str(pid)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10
    )
    line = shown.stdout.decode("utf-8", "replace").strip()
    return [] if not line or line.startswith("Z") else [line]


def is_running_with(pid: int, argument: str) -> bool:
    """Whether this process is alive and was started with this argument (a data directory tells whose it is)."""
    if pid <= 1:
        return False
    arguments = command_line(pid)
    if len(arguments) == 1:
        return argument in arguments[0]
    return argument in arguments


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


def session_members(session: int) -> List[int]:
    """Every live process of a session. Only where there is /proc; elsewhere none."""
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # the name in parentheses may itself hold blanks: state, parent, group, session follow the last one
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                members.append(int(entry.name))
    return members


@contextlib.contextmanager
def own_session(
    command: Sequence[str], cwd: Path, env: Optional[Mapping[str, str]] = None, stdout: Optional[int] = None
) -> "Iterator[subprocess.Popen[bytes]]":
    """A program that starts others (cargo), for the block. At its end the whole session ends, whatever groups its
    members made for themselves: the first process gets time to do so itself, the rest is ended by force."""
    child: "Optional[subprocess.Popen[bytes]]" = None
    try:
        with signals_held_back():
            child = subprocess.Popen(list(command), cwd=cwd, env=dict(env) if env is not None else None, stdin=subprocess.DEVNULL,
                                     stdout=stdout, start_new_session=True)
        yield child
    finally:
        if child is not None:
            with signals_held_back(deliver=False):
                _end_session(child)


def _end_session(first: "subprocess.Popen[bytes]") -> None:
    end(first.pid, lambda: first.poll() is None, [(signal.SIGTERM, 20), (signal.SIGKILL, 5)])
    for pid in session_members(first.pid):
        end(pid, lambda: pid in session_members(first.pid), [(signal.SIGTERM, 2), (signal.SIGKILL, 2)])


def last_lines(log: Path, count: int) -> List[str]:
    """The end of a log, read without holding a large file in memory."""
    try:
        with open(log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 64 * 1024))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except OSError:
        return []
