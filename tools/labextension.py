"""Build the JupyterLab extension, or check that the built one in the repository is what its source gives.

python tools/labextension.py build after a change in labextension/ python tools/labextension.py check as CI does:
install by the lock file, lint, type-check, unit tests, build anew and compare Without npm, `check` compares a hash of
the source that `build` has left beside the bundle.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME, DIST = ROOT / "labextension", ROOT / "labextension" / "dist"
BUNDLE, MARK = DIST / "fastai-tl", DIST / "source.sha256"
SOURCES = ("src", "style", "schema", "package.json", "package-lock.json", "tsconfig.json")
TEMPLATE = ROOT / "fastai_tl" / "data" / "notebook.json"  # which the extension fills in, too


def source_hash(home: Path = HOME) -> str:
    "One hash of everything that the bundle is made of"
    files = sorted(
        p for s in SOURCES for p in ([home / s] if (home / s).is_file() else (home / s).rglob("*")) if p.is_file()
    )
    h = hashlib.sha256()
    for p in files:
        h.update(f"{p.relative_to(home).as_posix()}\n".encode() + p.read_bytes() + b"\n")
    return h.hexdigest()


def run(*cmd: str, cwd: Path = HOME):
    print("+", *cmd, flush=True)
    subprocess.run(
        cmd,
        cwd=cwd,
        check=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )


def install(home: Path = HOME):
    "What the lock file says, unless it is there already"
    have = home / "node_modules" / ".package-lock.json"
    if have.is_file() and have.stat().st_mtime >= (home / "package-lock.json").stat().st_mtime:
        return
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", cwd=home)


def bundle(home: Path):
    "Compile into home/dist"
    for d in ("lib", "dist"):
        shutil.rmtree(home / d, ignore_errors=True)
    run("npx", "tsc", cwd=home)
    run("jupyter-builder", "build", ".", cwd=home)


def contents(folder: Path) -> dict[str, bytes]:
    """Files of a bundle by name, without what depends on the folder in which it was built: the hashes in names, and the
    numbers by which the modules of a bundle call each other. remoteEntry is made of both, and is left out
    """
    out = {}
    for p in sorted(folder.rglob("*")):
        if not p.is_file() or p.name.startswith("remoteEntry"):
            continue
        name, data = p.relative_to(folder).as_posix(), p.read_bytes()
        if name == "package.json":
            about = json.loads(data)
            about["jupyterlab"].get("_build", {}).pop("load", None)
            data = json.dumps(about, sort_keys=True).encode()
        if p.suffix == ".js":
            name = re.sub(r"\.[0-9a-f]{16}\.js$", ".js", name)
            data = re.sub(rb"(?<![\w.])\d+(?=\(t)|(?<=\bo\()\d+(?=\))", b"N", data)
        out[name] = data
    return out


def build():
    shutil.copy(TEMPLATE, HOME / "src" / "notebook.json")
    install()
    bundle(HOME)
    MARK.write_text(source_hash() + "\n", encoding="utf-8")
    print(
        f"Built: {BUNDLE.relative_to(ROOT)}, "
        f"{sum(p.stat().st_size for p in BUNDLE.rglob('*') if p.is_file()) / 1e3:.0f} kB"
    )


def check() -> int:
    bad = []
    if (HOME / "src" / "notebook.json").read_bytes() != TEMPLATE.read_bytes():
        bad.append(f"src/notebook.json differs from {TEMPLATE.relative_to(ROOT)}")
    if not MARK.is_file() or MARK.read_text(encoding="utf-8").strip() != source_hash():
        bad.append("the source has changed since the bundle was built")
    if shutil.which("npm") is None:
        if os.environ.get("CI"):
            bad.append("npm is not installed: CI builds the bundle anew")
        else:
            print("npm is not installed: only the hash of the extension's source was compared.")
    elif not bad:
        install()
        run("npx", "eslint", "src", "test")
        run("npm", "test", "--silent")
        old = contents(BUNDLE)
        # chunks are named by what is in them and where it lies, so it is built in its place
        with tempfile.TemporaryDirectory() as d:
            shutil.copytree(DIST, Path(d) / "dist")
            try:
                bundle(HOME)
                new = contents(BUNDLE)
            finally:
                shutil.rmtree(DIST, ignore_errors=True)
                shutil.copytree(Path(d) / "dist", DIST)
        bad += [
            f"{k} is not what the source gives" for k in sorted(new.keys() | old.keys()) if new.get(k) != old.get(k)
        ]
    for b in bad:
        print(f"labextension: {b}. Run `make labextension` and commit labextension/dist.", file=sys.stderr)
    return bool(bad)


if __name__ == "__main__":
    if sys.argv[1:] not in (["build"], ["check"]):
        sys.exit(__doc__)
    try:
        sys.exit(build() if sys.argv[1] == "build" else check())
    except subprocess.CalledProcessError as e:
        sys.exit(f"labextension: {' '.join(map(str, e.cmd))} failed, see above.")
