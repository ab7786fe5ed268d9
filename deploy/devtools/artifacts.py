"""`deploy/dev check`: what is shipped beside the programs, held against the tools that will read it."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List, Sequence

from . import installed
from .processes import Problem, step

# the scale of systemd-analyze times ten: 15 = 1.5
EXPOSURE = 15
SERVICES = ("ingest.service", "relay@1.service", "relay-migrate.service")
OTHER_UNITS = ("ingest.socket", "relay.target")
# the oldest that knows a preStop that sleeps, and the newest that the validator knows
KUBERNETES = ("1.30.0", "1.37.0")


def _run(command: Sequence[str], cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(list(command), cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)


def _must_be_silent(what: str, done: "subprocess.CompletedProcess[str]") -> None:
    said = (done.stdout + done.stderr).strip()
    if done.returncode != 0 or said:
        raise Problem(f"{what}: exit code {done.returncode}, see above", said.splitlines())


def check(checkout: Path, home: Path) -> int:
    """0, or a Problem that names the first thing that is wrong."""
    _units(checkout / "deploy" / "systemd")
    _manifests(checkout / "deploy" / "kubernetes", home)
    _dependencies(checkout, home)
    return 0


def _units(folder: Path) -> None:
    if not shutil.which("systemd-analyze"):
        installed.apt_install(["systemd"], "systemd-analyze is not installed")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "usr/lib/systemd").mkdir(parents=True)
        (root / "lib").symlink_to("usr/lib")
        # the system's own units, since ours refer to them
        shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
        own = root / "etc/systemd/system"
        own.mkdir(parents=True)
        for unit in folder.iterdir():
            shutil.copy(unit, own / unit.name)
        for program in ("usr/local/bin/ingest", "usr/local/bin/relay", "bin/kill"):
            (root / program).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy("/bin/true", root / program)
        units = [*SERVICES, *OTHER_UNITS]
        step(f"systemd-analyze verify {' '.join(units)}")
        _must_be_silent("systemd-analyze verify", _run(["systemd-analyze", "verify", "--man=no", f"--root={root}", *units], root))
        for unit in SERVICES:
            done = _run(["systemd-analyze", "security", "--offline=true", f"--root={root}", f"--threshold={EXPOSURE}", "--no-pager", unit], root)
            found = [line for line in done.stdout.splitlines() if "Overall exposure level" in line]
            step(found[0].strip("→ ") if found else f"{unit}: no exposure told")
            if done.returncode != 0 or not found:
                raise Problem(f"{unit}: its exposure is above {EXPOSURE / 10}, see above", done.stdout.splitlines())


def _built_overlays(folder: Path, target: Path) -> List[Path]:
    """Each overlay as a cluster would get it; file by file where there is nothing that builds them."""
    builder = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    if not shutil.which(builder[0]):
        step("NOT BUILT: the overlays, for want of kustomize or kubectl on PATH. Their files and the base's are checked one by one")
        return sorted(path for path in folder.rglob("*.yaml") if path.name != "kustomization.yaml" and not _is_patch(path))
    built = []
    for overlay in sorted((folder / "overlays").iterdir()):
        done = _run([*builder, str(overlay)], folder)
        if done.returncode != 0 or done.stderr.strip():
            raise Problem(f"{' '.join(builder)} {overlay.name}: exit code {done.returncode}, see above", done.stderr.splitlines())
        path = target / f"{overlay.name}.yaml"
        path.write_text(done.stdout, encoding="utf-8")
        built.append(path)
    return built


def _is_patch(path: Path) -> bool:
    kustomization = path.parent / "kustomization.yaml"
    return kustomization.exists() and f"- path: {path.name}" in kustomization.read_text("utf-8")


def _manifests(folder: Path, home: Path) -> None:
    validator = installed.kubernetes_validate(home / "kubernetes-validate")
    env = {**os.environ, "PYTHONPATH": validator}
    with tempfile.TemporaryDirectory() as name:
        manifests = _built_overlays(folder, Path(name))
        for version in KUBERNETES:
            step(f"kubernetes-validate --strict -k {version} {' '.join(path.name for path in manifests)}")
            done = subprocess.run([sys.executable, "-m", "kubernetes_validate", "--strict", "-k", version, *map(str, manifests)],
                                  env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
            said = done.stdout + done.stderr
            # kinds of KEDA are not Kubernetes' own: named, not checked
            unknown = [line for line in said.splitlines() if line.startswith("WARN") and "keda.sh" not in line]
            if done.returncode != 0 or unknown:
                raise Problem(f"the manifests are not those of Kubernetes {version}, see above", said.splitlines())


def _dependencies(checkout: Path, home: Path) -> None:
    deny = [installed.cargo_deny(home / "cargo-deny"), "--all-features", "--config", ".deny.toml", "check"]
    step("cargo deny check licenses bans sources")
    done = _run([*deny, "licenses", "bans", "sources"], checkout)
    if done.returncode != 0:
        raise Problem("cargo deny: see above", (done.stdout + done.stderr).splitlines()[-60:])
    step("cargo deny check advisories")
    done = _run([*deny, "advisories"], checkout)
    said = done.stdout + done.stderr
    if "failed to fetch advisory database" in said:
        step("NOT CHECKED: the advisories, for want of a way to their database")
    elif done.returncode != 0:
        raise Problem("cargo deny: see above", said.splitlines()[-60:])
