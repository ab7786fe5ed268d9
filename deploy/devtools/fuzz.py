"""`deploy/dev fuzz`: what strangers write, drawn by libFuzzer under the guidance of coverage, against the targets of shared/fuzz.

What it finds on the way is kept in target/fuzz; shared/fuzz/corpus, which the ordinary tests run, only begins with it. A program's nice
value is the caller's affair.
"""

import json
import os
import re
import shutil
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Dict, List, Tuple

from .processes import Problem, run_in_session, step
from .programs import commit_of

BUILD_SECONDS = 2 * 3600
MINUTES = 10.0
# the patterns of the extractor take half a minute to compile in the first input, with all that counts and checks
SLOWEST_SECONDS = 120
MEMORY_MIB = 3072
LONGEST_INPUT = 8192


def fuzz(checkout: Path, arguments: List[str]) -> int:
    """Exit code 0: nothing found in any of the targets; 1: an input that breaks one, and which; 2: usage."""
    corpus = checkout / "shared" / "fuzz" / "corpus"
    known = sorted(folder.name for folder in corpus.iterdir() if folder.is_dir())
    names, minutes = _read(arguments, known)
    program, commit = _build(checkout), commit_of(checkout)
    home = checkout / "target" / "fuzz"
    broken = [name for name in names if not _run(checkout, program, commit, home, name, minutes)]
    if broken:
        raise Problem(f"broken: {', '.join(broken)}. The inputs are in {home}/NAME-broken; put one into {corpus}/NAME, "
                      "and `cargo test -p fuzz` shows it again, on any toolchain")
    return 0


def _read(arguments: List[str], known: List[str]) -> Tuple[List[str], float]:
    usage = f"fuzz [NAME ..] [--minutes M]: the names are {', '.join(known)}; without one, all"
    names, minutes, rest = [], MINUTES, list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--minutes" and rest and re.fullmatch(r"\d+(\.\d+)?", rest[0]):
            minutes = float(rest.pop(0))
        elif word in known:
            names.append(word)
        else:
            raise Problem(f"fuzz {word}: not understood. {usage}", exit_code=2)
    return names or known, minutes


def _build(checkout: Path) -> Path:
    """The program with all targets; needs what a stable toolchain has not."""
    missing = "Install it: rustup toolchain install nightly --profile minimal. The kept corpus runs without: cargo test -p fuzz"
    if not shutil.which("cargo"):
        raise Problem("cargo is not on PATH. Install Rust with rustup, then try again")
    if subprocess.run(["cargo", "+nightly", "--version"], capture_output=True, check=False).returncode != 0:
        raise Problem(f"fuzz needs a nightly toolchain of Rust, and there is none. {missing}")
    if not shutil.which("cargo-fuzz"):
        raise Problem("fuzz needs cargo-fuzz, and there is none. Install it: cargo install cargo-fuzz --locked")
    crate = checkout / "shared" / "fuzz" / "libfuzzer"
    lock, ours = crate / "Cargo.lock", checkout / "Cargo.lock"
    # the versions that are shipped; cargo adds libFuzzer's own
    if not lock.exists() or lock.stat().st_mtime < ours.stat().st_mtime:
        shutil.copyfile(ours, lock)
    step("building all targets with coverage and AddressSanitizer; the first time takes some ten minutes")
    output = checkout / "target" / "fuzz" / "build"
    command = ["cargo", "+nightly", "fuzz", "build", "--fuzz-dir", str(crate), "--target-dir", str(output), "target"]
    code, _ = run_in_session(command, checkout, BUILD_SECONDS, stdout=subprocess.DEVNULL)
    built = sorted(output.glob("*/release/target"))
    if code != 0 or not built:
        raise Problem("cargo fuzz build failed; its messages are above")
    return built[0]


def _run(checkout: Path, program: Path, commit: str, home: Path, name: str, minutes: float) -> bool:
    """One target for its time; prints its figures as one JSON object. Whether it held."""
    found, broken, log = home / name, home / f"{name}-broken", home / f"{name}.log"
    for folder in (found, broken):
        folder.mkdir(parents=True, exist_ok=True)
    step(f"{name}: {minutes:g} minutes; {log}")
    command = [
        str(program), str(found), str(checkout / "shared" / "fuzz" / "corpus" / name), f"-max_total_time={int(minutes * 60)}",
        f"-timeout={SLOWEST_SECONDS}", f"-rss_limit_mb={MEMORY_MIB}", f"-max_len={LONGEST_INPUT}", f"-artifact_prefix={broken}/",
        "-print_final_stats=1", "-close_fd_mask=1",
    ]
    start, began = _now(), time.monotonic()
    with open(log, "wb") as out:
        env = {**os.environ, "FUZZ_TARGET": name}
        code = _logged(command, checkout, minutes * 60 + 2 * SLOWEST_SECONDS + 60, env, out.fileno())
    figures = _figures(log)
    print(json.dumps({
        "bench": "fuzz", "target": name, "commit": commit, "start": start, "end": _now(),
        "seconds": round(time.monotonic() - began), "held": code == 0, **figures, "sanitizer": "address",
        "corpus_files": sum(1 for _ in found.iterdir()),
    }), flush=True)
    if code != 0:
        lines = log.read_text("utf-8", "replace").splitlines()
        for line in _what_broke(lines) or lines[-10:]:
            step(f"{name}: {line}")
    return code == 0


def _what_broke(lines: List[str]) -> List[str]:
    panics = [lines[place:place + 2] for place, line in enumerate(lines) if " panicked at " in line][:1]
    return [*sum(panics, []), *(line for line in lines if "ERROR: libFuzzer" in line or "Test unit written" in line)]


def _logged(command: List[str], checkout: Path, seconds: float, env: Dict[str, str], log: int) -> int:
    # libFuzzer speaks on standard error
    saved = os.dup(2)
    try:
        os.dup2(log, 2)
        code, _ = run_in_session(command, checkout, seconds, env=env, stdout=subprocess.DEVNULL)
        return code
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _figures(log: Path) -> Dict[str, int]:
    text = log.read_text("utf-8", "replace")
    wanted = {
        "executions": r"stat::number_of_executed_units:\s+(\d+)", "executions_per_second": r"stat::average_exec_per_sec:\s+(\d+)",
        "peak_rss_mib": r"stat::peak_rss_mb:\s+(\d+)", "coverage": r"cov: (\d+)", "features": r"ft: (\d+)",
    }
    return {name: int(found[-1]) for name, pattern in wanted.items() if (found := re.findall(pattern, text))}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
