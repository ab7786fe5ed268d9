"""The two programs, built by cargo."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Dict

from .console import Problem, step
from .processes import own_session

BUILD_SECONDS = 3600


def build(checkout: Path) -> Dict[str, str]:
    """Where ingest and relay are after the build: cargo itself says so, wherever its target directory is."""
    if not shutil.which("cargo"):
        raise Problem("cargo is not on PATH. Install Rust with rustup, then try again")
    step("building ingest and relay")
    # JSON goes to stdout; what people read goes to stderr as always
    command = ["cargo", "build", "--workspace", "--bins", "--message-format=json-render-diagnostics"]
    with own_session(command, checkout, stdout=subprocess.PIPE) as cargo:
        try:
            printed, _ = cargo.communicate(timeout=BUILD_SECONDS)
        except subprocess.TimeoutExpired:
            raise Problem(f"cargo build: not done after {BUILD_SECONDS} s") from None
    if cargo.returncode != 0:
        raise Problem("cargo build failed; its messages are above")
    binaries = {}
    for line in printed.splitlines():
        message = json.loads(line) if line.startswith(b"{") else {}
        if message.get("executable"):
            binaries[message["target"]["name"]] = message["executable"]
    for name in ("ingest", "relay"):
        if name not in binaries:
            raise Problem(f"cargo build made no program {name}: is there a {name}/src/main.rs?")
    return binaries
