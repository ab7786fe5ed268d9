"""`deploy/dev package`: both programs as one tarball that runs on any Linux of this processor, with units and licences.

Linked statically with musl: with glibc the name service of the host is loaded into the program, and another version of it crashes there. The
same sources, compiler and folder names give the same archive; it is tried from an empty root before it is called done.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Dict, List, Tuple

from . import installed
from .processes import Problem, output_of, step
from .programs import executables

LICENCE_FILE = re.compile(r"^(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)
# under the prefix (/usr/local): systemd looks for units there too
UNITS = "lib/systemd/system"
DOCUMENTS = "share/doc/outbox"


class Package:
    """The archive of this checkout."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.metadata = json.loads(output_of(["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path",
                                              str(checkout / "Cargo.toml")], 600))
        self.version = next(p["version"] for p in self.metadata["packages"] if p["name"] == "relay")
        self.name = f"outbox-{self.version}-{platform.machine()}-linux"
        self.archive = Path(self.metadata["target_directory"]) / "package" / f"{self.name}.tar.gz"

    def build(self) -> Path:
        """The path of the new archive."""
        step("building ingest and relay for release, linked statically")
        target = installed.musl_target()
        # no folder of this machine in the programs
        cargo_home = os.environ.get("CARGO_HOME") or str(Path.home() / ".cargo")
        flags = [f"--remap-path-prefix={self.checkout}=/outbox", f"--remap-path-prefix={cargo_home}=/cargo"]
        env = {**os.environ, "RUSTFLAGS": " ".join(flags)}
        built = executables(self.checkout, ["build", "--release", "--locked", "--workspace", "--bins", "--target", target], "bin", env)
        self.archive.parent.mkdir(parents=True, exist_ok=True)
        with open(self.archive, "wb") as file, gzip.GzipFile("", "wb", mtime=0, fileobj=file) as packed, \
                tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path, (content, mode) in sorted(self._files(built, target).items()):
                entry = tarfile.TarInfo(f"{self.name}/{path}")
                entry.size, entry.mode, entry.mtime = len(content), mode, 0
                archive.addfile(entry, io.BytesIO(content))
        digest = hashlib.sha256(self.archive.read_bytes()).hexdigest()
        self.archive.with_suffix(".gz.sha256").write_text(f"{digest}  {self.archive.name}\n", encoding="ascii")
        step(f"{self.archive.name}: {self.archive.stat().st_size / 1e6:.1f} MB, sha256 {digest}")
        return self.archive

    def _files(self, built: Dict[str, str], target: str) -> Dict[str, Tuple[bytes, int]]:
        files = {f"bin/{name}": (Path(built[name]).read_bytes(), 0o755) for name in ("ingest", "relay")}
        deploy = self.checkout / "deploy"
        units = {f"{UNITS}/{unit.name}": unit for unit in (deploy / "systemd").iterdir() if unit.suffix != ".env"}
        examples = {f"{DOCUMENTS}/examples/{env.name}": env for env in (deploy / "systemd").glob("*.env")}
        documents = {f"{DOCUMENTS}/{path.name}": path for path in [self.checkout / "README.md", self.checkout / "LICENSE",
                                                                    *deploy.glob("*.md"), *deploy.glob("mongodb*")]}
        documents[f"{DOCUMENTS}/sql/README.md"] = self.checkout / "sql" / "README.md"
        for folder in ("prometheus", "grafana"):
            documents.update({f"{DOCUMENTS}/{folder}/{path.name}": path for path in (deploy / folder).iterdir()})
        for name, source in {**units, **examples, **documents}.items():
            files[name] = (source.read_bytes(), 0o644)
        files[f"{DOCUMENTS}/THIRD-PARTY-LICENSES.txt"] = (self._licences(target).encode(), 0o644)
        return files

    def _licences(self, target: str) -> str:
        """Which foreign crates are linked, and the texts of their licences, each text once."""
        tree = output_of(["cargo", "tree", "--locked", "--workspace", "--edges", "normal", "--target", target, "--prefix", "none",
                          "--format", "{p}", "--manifest-path", str(self.checkout / "Cargo.toml")], 600)
        linked = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
        crates = [p for p in self.metadata["packages"] if p["source"] and (p["name"], f"v{p['version']}") in linked]
        texts: Dict[str, List[str]] = {}
        lines = ["What ingest and relay are linked with, and the licences of that.", "",
                 "musl libc: MIT", "Rust's standard library: MIT OR Apache-2.0"]
        for crate in sorted(crates, key=lambda crate: (crate["name"], crate["version"])):
            name = f"{crate['name']} {crate['version']}"
            lines.append(f"{name}: {crate['license'] or crate['license_file']}")
            for file in sorted(Path(crate["manifest_path"]).parent.iterdir()):
                if file.is_file() and LICENCE_FILE.match(file.name):
                    texts.setdefault(file.read_text("utf-8", "replace").strip(), []).append(name)
        for text, names in texts.items():
            lines += ["", "=" * 100, ", ".join(dict.fromkeys(names)), "=" * 100, "", text]
        return "\n".join(lines) + "\n"

    def unpack(self, root: Path) -> Dict[str, List[str]]:
        """Unpacks it into an otherwise empty root, as an administrator would; how the programs are called there."""
        shutil.rmtree(root, ignore_errors=True)
        prefix = root / "usr" / "local"
        prefix.mkdir(parents=True)
        output_of(["tar", "-x", "-z", "-f", str(self.archive), "-C", str(prefix), "--strip-components=1"], 60)
        missing = [path for path in ("bin/ingest", "bin/relay", f"{UNITS}/ingest.socket", f"{DOCUMENTS}/THIRD-PARTY-LICENSES.txt")
                   if not (prefix / path).is_file()]
        if missing:
            raise Problem(f"{self.archive.name} lacks {', '.join(missing)}")
        if os.geteuid() != 0:
            step("not root: the programs are tried from where they were unpacked, not in a root of their own")
            return {name: [str(prefix / "bin" / name)] for name in ("ingest", "relay")}
        # what every container and unit has
        (root / "dev").mkdir()
        for name, minor in (("null", 3), ("urandom", 9)):
            os.mknod(root / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        return {name: ["chroot", str(root), f"/usr/local/bin/{name}"] for name in ("ingest", "relay")}
