"""deploy/dev chaos: the programs built, the servers' programs and faketime found, one run carried out."""

import os
import resource
import shutil
from pathlib import Path
from typing import Callable, Dict, List

from . import installed
from .databases import Mongod
from .processes import Problem, run_in_session, step
from .programs import commit_of, executables

# four hours are the longest run, and what comes after its load
CHAOS_SECONDS = 5 * 3600


def chaos(checkout: Path, arguments: List[str], mongod: Mongod) -> int:
    """The exit code of the run: 0 if nothing was wrong. With --release the programs are built for release."""
    if not shutil.which("cargo"):
        raise Problem("cargo is not on PATH. Install Rust with rustup, then try again")
    profile = ["--release"] if "--release" in arguments else []
    arguments = [argument for argument in arguments if argument != "--release"]
    step("building ingest, relay and chaos")
    built = executables(checkout, ["build", "--workspace", "--bins", *profile], "bin")
    if {"-h", "--help"} & set(arguments):
        return run_in_session([built["chaos"], "--help"], checkout, 60)[0]
    values = {
        "INGEST_PROGRAM": built["ingest"], "RELAY_PROGRAM": built["relay"], "MONGOD": mongod.program(),
        "POSTGRES_BIN": installed.find_postgres(None)[0], "CHAOS_COMMIT": commit_of(checkout),
        "CHAOS_LOGS": os.environ.get("CHAOS_LOGS") or str(checkout / "target" / "dev" / "chaos"),
    }
    optional: Dict[str, Callable[[], str]] = {"FAKETIME_LIB": lambda: installed.faketime(mongod.home / "faketime")}
    for name, find in optional.items():
        try:
            values[name] = find()
        except Problem as problem:
            step(f"no {name}, so without the faults that need it: {problem}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    code, _ = run_in_session([built["chaos"], *arguments], checkout, CHAOS_SECONDS, env={**os.environ, **values})
    return code if code >= 0 else 128 - code

