"""Postgres and MongoDB as servers of this checkout."""

import contextlib
import hashlib
import os
import pwd
import shutil
import signal
from pathlib import Path
from typing import Any, Dict, List, Optional
from urllib.parse import urlsplit, urlunsplit

from . import installed
from .processes import Problem, output_of, spawn, step
from .servers import Notes, Server

REPLICA_SET = "rs0"
ROLES = ("ingest", "relay", "operator")


def postgres_env() -> Dict[str, str]:
    """Without PG*: a PGSERVICE or PGSSLMODE of the user's is meant for another server. Messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C", "PGCONNECT_TIMEOUT": "3"}


def make_users(url: str, env: Dict[str, str]) -> None:
    """A user of its own for each role that `relay migrate` has made: the programs run with no more rights than in production."""
    for role in ROLES:
        statement = (f"do $$ begin create user dev_{role} password 'dev' in role {role}; "
                     "exception when duplicate_object or unique_violation then null; end $$")
        output_of([installed.find_psql(), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statement], 60, env=env,
                  what_to_do="The user of DATABASE_URL must be allowed to create roles (createrole)")


def as_user_of(role: str, url: str) -> str:
    """The same database for the user who has this role; both forms of a connection string."""
    if "://" not in url:
        return f"{url} user=dev_{role} password=dev"
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"dev_{role}:dev@{parts.netloc.rpartition('@')[2]}"))


class Postgres(Server):
    """Durable as in production (fsync and synchronous_commit on), reachable on 127.0.0.1 only."""

    name = "postgres"
    title = "Postgres"
    own_pid_file = "postmaster.pid"
    # fast shutdown, then immediate, then by force
    stop_signals = [(signal.SIGINT, 30), (signal.SIGQUIT, 10), (signal.SIGKILL, 5)]

    def __init__(self, notes: Notes) -> None:
        super().__init__(notes, "DATABASE_URL")

    def url_at(self, port: int) -> str:
        return f"postgres://postgres@127.0.0.1:{port}/outbox"

    @property
    def data(self) -> Path:
        """For root in /var/tmp: Postgres then runs as another user, who may not get into the checkout."""
        home = self.home
        if os.geteuid() == 0 and "postgres_data" not in self.notes.values:
            home = Path("/var/tmp") / f"outbox-dev-{hashlib.sha256(str(self.notes.checkout).encode()).hexdigest()[:12]}"
        return Path(self.notes.values.get("postgres_data") or home / "postgres")

    def start(self) -> None:
        user = self._user()
        folder, major = installed.find_postgres(self._data_major())
        if self._data_major() is None:
            self._create_data(folder, user)
        self.notes.put("postgres_data", str(self.data))
        port = self.choose_port()
        step(f"starting Postgres {major} on port {port}")
        # tests run in one process per core, each with pools of its own
        settings = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=500",
                    "fsync=on", "synchronous_commit=on", "full_page_writes=on", "logging_collector=off"]
        spawn([os.path.join(folder, "postgres"), "-D", str(self.data), *(a for s in settings for a in ("-c", s))],
              self.log, lambda child: self.note_pid(child.pid), env=postgres_env(), user=user)

    def serves(self) -> bool:
        psql = [installed.find_psql(), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d",
                f"postgres://postgres@127.0.0.1:{self.port}/postgres", "-c"]
        try:
            if not output_of([*psql, "select 1 from pg_database where datname = 'outbox'"], 5, env=postgres_env()).strip():
                output_of([*psql, "create database outbox"], 60, env=postgres_env())
        except Problem:
            return False
        return True

    def _data_major(self) -> Optional[int]:
        # a directory that this user may not read (root made it) has to be an error, not "no data yet"
        with contextlib.suppress(FileNotFoundError):
            return int((self.data / "PG_VERSION").read_text().split(".")[0])
        return None

    @staticmethod
    def _user() -> Dict[str, Any]:
        """Postgres refuses to run as root: then it is `postgres`, or `nobody` where there is no such user."""
        if os.geteuid() != 0:
            return {}
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        raise Problem("Postgres refuses to run as root, and there is neither a user postgres nor nobody here. Run deploy/dev "
                      "as a plain user")

    def _create_data(self, folder: str, user: Dict[str, Any]) -> None:
        step(f"creating the Postgres data directory {self.data}")
        parent = self.data.parent
        with contextlib.suppress(FileExistsError):
            parent.mkdir(mode=0o711)
        # anybody may create names in /var/tmp: one that is not ours is not used
        if parent.is_symlink() or parent.stat().st_uid != os.geteuid():
            raise Problem(f"{parent} belongs to another user: remove it and try again")
        if user:
            parent.chmod(0o711)
        part = parent / "postgres.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        if user:
            os.chown(part, user["user"], user["group"])
        try:
            output_of([os.path.join(folder, "initdb"), "-D", str(part), "-U", "postgres", "-E", "UTF8", "--no-locale",
                       "--auth=trust"], 180, env=postgres_env(), user=user)
            # renamed last: an interrupted initdb must not look like a finished one
            os.replace(part, self.data)
        finally:
            shutil.rmtree(part, ignore_errors=True)


class Mongod(Server):
    """A replica set of one node: transactions and majority reads behave as in production."""

    name = "mongod"
    title = "MongoDB"
    own_pid_file = "mongod.lock"
    stop_signals = [(signal.SIGTERM, 30), (signal.SIGKILL, 5)]

    def __init__(self, notes: Notes) -> None:
        super().__init__(notes, "MONGODB_URL")

    def url_at(self, port: int) -> str:
        return f"mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}"

    def program(self) -> str:
        """The mongod that runs here, whoever runs the server; fetched if need be."""
        return installed.find_mongod(self.home / "bin" / "mongod")

    def start(self) -> None:
        mongod = self.program()
        installed.pymongo(self.home / "python")
        self.data.mkdir(parents=True, exist_ok=True)
        port = self.choose_port()
        step(f"starting mongod on port {port}")
        # At most 4 GB of cache, taken as data comes, where the default is half of the memory: the machine is shared with compilers.
        # With 0.5 the versions that MongoDB keeps for 300 s (minSnapshotHistoryWindowInSeconds) left the cache after two minutes of
        # 6,000 updates a second, and each update cost twice as much. The oplog would else take a share of the disk.
        spawn([mongod, "--dbpath", str(self.data), "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket",
               "--replSet", REPLICA_SET, "--wiredTigerCacheSizeGB", "4", "--oplogSize", "512", "--quiet",
               "--setParameter", "diagnosticDataCollectionEnabled=false"],
              self.log, lambda child: self.note_pid(child.pid))

    def serves(self) -> bool:
        pymongo = installed.pymongo(self.home / "python")
        member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
        try:
            with pymongo.MongoClient(f"mongodb://{member['host']}/?directConnection=true", serverSelectionTimeoutMS=2000,
                                     socketTimeoutMS=20000) as client:
                hello = client.admin.command("hello")
                if hello.get("isWritablePrimary") and hello.get("me") == member["host"]:
                    return True
                if not hello.get("setName"):
                    self._configure(pymongo, client, member)
        except pymongo.errors.PyMongoError:
            pass
        return False

    @staticmethod
    def _configure(pymongo: Any, client: Any, member: Dict[str, Any]) -> None:
        try:
            config = client.admin.command("replSetGetConfig")["config"]
        except pymongo.errors.OperationFailure as error:
            if error.code == 94:  # NotYetInitialized
                # said only afterwards: a node that is still reading its configuration answers 94 too, and refuses this
                client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})
                step("replica set initiated")
            return
        # the port has changed since: the node does not find itself in the configuration that it has stored
        if [m["host"] for m in config["members"]] != [member["host"]]:
            config.update(members=[member], version=config["version"] + 1)
            client.admin.command("replSetReconfig", config, force=True)
