"""ingest, relay and a mail server while the demo runs them: built, started, asked, stopped."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import urlsplit, urlunsplit

from . import installed
from .databases import as_user_of, make_users
from .processes import Problem, end, last_lines, output_of, run_in_session, spawn, step
from .servers import free_port, port_is_free

BUILD_SECONDS = 3600
READY_SECONDS = 30
STOP_SECONDS = 15


def ask(
    address: str, method: str, path: str, body: Optional[bytes] = None, headers: Optional[Dict[str, str]] = None
) -> Tuple[int, bytes]:
    """One HTTP request to this machine, past any proxy of the environment; status 0 if nobody answers."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def with_database(url: str, database: str) -> str:
    """The same Postgres server, another database; both forms of a connection string."""
    if "://" not in url:
        return f"{url} dbname={database}"
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def listen_address(wanted: Optional[str]) -> str:
    """The wanted one if nobody listens there, else a free port."""
    if wanted:
        host, _, port = wanted.rpartition(":")
        if host and port.isdigit() and port_is_free(int(port), host):
            return wanted
        step(f"INGEST_LISTEN {wanted} is not free: taking another port")
    return f"127.0.0.1:{free_port()}"


def executables(
    checkout: Path, arguments: List[str], kind: str, env: Optional[Dict[str, str]] = None
) -> Dict[str, str]:
    """Builds; the paths of its programs by name. cargo itself says where it puts them, wherever its target directory is."""
    # JSON goes to stdout; what people read goes to stderr as always
    command = ["cargo", *arguments, "--message-format=json-render-diagnostics"]
    code, printed = run_in_session(command, checkout, BUILD_SECONDS, env=env, stdout=subprocess.PIPE)
    if code != 0:
        raise Problem(f"cargo {arguments[0]} failed; its messages are above")
    messages = [json.loads(line) for line in printed.splitlines() if line.startswith(b"{")]
    built = [message for message in messages if message.get("executable") and kind in message["target"]["kind"]]
    return {message["target"]["name"]: message["executable"] for message in built}


def commit_of(checkout: Path) -> str:
    """Of the checkout, with a + where files differ from it; nothing where that cannot be told."""
    try:
        git = ["git", "-C", str(checkout)]
        changed = output_of([*git, "status", "--porcelain"], 60).strip()
        return output_of([*git, "rev-parse", "--short", "HEAD"], 60).strip() + ("+" if changed else "")
    except Problem:
        return ""


class Programs:
    """All of them, on a database of the demo's own, and where they listen."""

    def __init__(self, checkout: Path, logs: Path, env: Dict[str, str], database: str, psql_env: Dict[str, str]) -> None:
        self.checkout, self.logs, self.psql_env = checkout, logs, psql_env
        self.letters_folder, self.smtp_port = logs.parent / "letters", free_port()
        self.ingest_address = listen_address(os.environ.get("INGEST_LISTEN"))
        self.ingest_admin, self.relay_admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.running: "Dict[str, subprocess.Popen[bytes]]" = {}
        self.commands: Dict[str, List[str]] = {}
        self.env = self._env(env, database)

    def _env(self, env: Dict[str, str], database: str) -> Dict[str, str]:
        # a mail server or a second address of Postgres in the caller's environment is not meant for the demo
        left_out = ("DATABASE_DIRECT_URL", "SMTP_URL", "SMTP_CA_FILE", "NOTIFY_TO", "NOTIFY_FROM")
        files = [f"{name}_FILE" for name in (*left_out, *env)]
        kept = {k: v for k, v in os.environ.items() if k not in left_out and k not in files}
        return {
            "RUST_LOG": "info", "LOG_FORMAT": "text", "EXTRACTOR": "rules", **kept, **env,
            "DATABASE_URL": with_database(env["DATABASE_URL"], database), "MONGODB_DATABASE": database,
            "INGEST_LISTEN": self.ingest_address, "INGEST_ADMIN_LISTEN": self.ingest_admin,
            "RELAY_ADMIN_LISTEN": self.relay_admin, "SMTP_URL": f"smtp://127.0.0.1:{self.smtp_port}",
            "NOTIFY_TO": "akten@kanzlei.example", "NOTIFY_FROM": "relay@kanzlei.example",
        }

    def build(self) -> None:
        """Both programs."""
        if not shutil.which("cargo"):
            raise Problem("cargo is not on PATH. Install Rust with rustup, then try again")
        step("building ingest and relay")
        built = executables(self.checkout, ["build", "--workspace", "--bins"], "bin")
        self.commands = {name: [path] for name, path in built.items()}

    def relay(self, *arguments: str) -> str:
        """One of its short commands, as an operator; what it prints."""
        return output_of([*self.commands["relay"], *arguments], 60, env=self._env_of("operator"))

    def _env_of(self, role: str) -> Dict[str, str]:
        return {**self.env, "DATABASE_URL": as_user_of(role, self.env["DATABASE_URL"])}

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def start(self) -> None:
        """Migrates, starts all and waits until they are ready."""
        self._start_mail_server()
        step("relay migrate")
        output_of([*self.commands["relay"], "migrate"], 60, env=self.env)
        make_users(self.env["DATABASE_URL"], self.psql_env)
        for name, word, address in (("ingest", "serve", self.ingest_address), ("relay", "run", self.relay_admin)):
            step(f"starting {name} {word} on {address}")
            spawn([*self.commands[name], word], self._log(name), lambda child, name=name: self.running.update({name: child}),
                  env=self._env_of(name))
        for name, address in (("ingest", self.ingest_address), ("relay", self.relay_admin)):
            self._wait_ready(name, address)
        step("ingest and relay are ready")

    def _start_mail_server(self) -> None:
        shutil.rmtree(self.letters_folder, ignore_errors=True)
        self.letters_folder.mkdir(parents=True)
        step(f"starting a mail server on 127.0.0.1:{self.smtp_port}")
        script = self.checkout / "relay" / "tests" / "smtp_server.py"
        env = {**os.environ, "PYTHONPATH": installed.aiosmtpd(self.logs.parent / "aiosmtpd")}
        spawn([sys.executable, str(script), str(self.letters_folder), "--port", str(self.smtp_port)], self._log("smtp"),
              lambda child: self.running.update({"smtp": child}), env=env)

    def letters(self) -> List[Dict[str, Any]]:
        """What the relay has sent to the firm, in order."""
        return [json.loads(file.read_text("utf-8")) for file in sorted(self.letters_folder.glob("*.letter"))]

    def must_run(self) -> None:
        """Raises if one has ended, with the end of its log."""
        for name, child in self.running.items():
            if child.poll() is not None:
                raise Problem(f"{name} ended with exit code {child.returncode}; the last lines of {self._log(name)} are above",
                              last_lines(self._log(name), 20))

    def _wait_ready(self, name: str, address: str) -> None:
        deadline, status, body = time.monotonic() + READY_SECONDS, 0, b""
        while status != 200:
            self.must_run()
            if time.monotonic() > deadline:
                raise Problem(f"{name} is not ready after {READY_SECONDS} s: http://{address}/readyz answers "
                              f"{status or 'nothing'}. Its log: {self._log(name)}", [body.decode("utf-8", "replace"), *last_lines(self._log(name), 20)])
            time.sleep(0.1)
            status, body = ask(address, "GET", "/readyz")

    def stop(self) -> bool:
        """SIGTERM, patience, SIGKILL, the last started first. False if one had to be killed or ended with an error."""
        return all([self._stop(name, child) for name, child in reversed(list(self.running.items())) if child.poll() is None])

    def _stop(self, name: str, child: "subprocess.Popen[bytes]") -> bool:
        step(f"stopping {name}")
        end(child.pid, lambda: child.poll() is None, [(signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5)])
        if child.returncode != 0:
            step(f"{name} did not end by itself: exit code {child.returncode}, see {self._log(name)}")
        return child.returncode == 0
