"""MongoDB of this checkout."""

import signal
from pathlib import Path
from typing import Any, Dict

from . import installed
from .console import step
from .processes import spawn
from .server import Server

REPLICA_SET = "rs0"


class Mongod(Server):
    """A replica set of one node: transactions and majority reads behave as in production."""

    name = "mongod"
    title = "MongoDB"
    own_pid_file = "mongod.lock"
    stop_signals = [(signal.SIGTERM, 30), (signal.SIGKILL, 5)]

    def url_at(self, port: int) -> str:
        return f"mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}"

    @property
    def cached_program(self) -> Path:
        """Where a fetched mongod is kept."""
        return self.home / "bin" / "mongod"

    def start(self) -> None:
        pymongo = installed.pymongo(self.home / "python")
        if self.pid() is None:
            mongod = installed.find_mongod(self.cached_program)
            self.data.mkdir(parents=True, exist_ok=True)
            port = self.choose_port()
            step(f"starting mongod on port {port}")
            # small: the machine is shared with compilers; the oplog would else take a share of the disk
            spawn([mongod, "--dbpath", str(self.data), "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket",
                   "--replSet", REPLICA_SET, "--wiredTigerCacheSizeGB", "0.5", "--oplogSize", "512", "--quiet",
                   "--setParameter", "diagnosticDataCollectionEnabled=false"],
                  self.log, lambda child: self.note_pid(child.pid))
        with pymongo.MongoClient(f"mongodb://127.0.0.1:{self.port}/?directConnection=true", serverSelectionTimeoutMS=2000,
                                 socketTimeoutMS=20000) as client:
            self.wait_until(lambda: self._is_primary(pymongo, client))

    def _is_primary(self, pymongo: Any, client: Any) -> bool:
        member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
        try:
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
