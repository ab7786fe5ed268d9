"""What the person at the terminal sees: one line per step with the seconds since the start, and problems that say what to do.

Steps go to stderr, so that stdout carries only results (`env`, the table of `run`).
"""

import sys
import time
from typing import List, Optional

STARTED = time.monotonic()


class Problem(Exception):
    """Something that stops the command. The text says what, where, and what to do about it."""

    def __init__(self, what: str, log: Optional[List[str]] = None) -> None:
        super().__init__(what)
        self.log = log or []


class Usage(Problem):
    """Words on the command line that mean nothing here."""


def step(text: str) -> None:
    """One line: seconds since the start, then what happens now."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)


def show_problem(problem: Problem) -> None:
    """The lines of a log first, the sentence that matters last, where the eye is."""
    for line in problem.log:
        print(f"    {line}", file=sys.stderr)
    print(f"deploy/dev: {problem}", file=sys.stderr, flush=True)


def seconds() -> float:
    """Seconds since the start."""
    return time.monotonic() - STARTED
