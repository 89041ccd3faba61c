#!/usr/bin/env python3
"""The index files and crate files of a Cargo.lock, as a static site: peers_site.py LOCKFILE DIR

All comes from the caches of cargo (CARGO_HOME or ~/.cargo), so `cargo fetch` has to come first, by the sparse protocol.
DIR/index/ gets the index file of each package, DIR/crates/NAME/NAME-VERSION.crate each crate file that is there. Prints
the number of index files, the number of crate files, and the mean size of the latter in bytes.
"""
import glob
import os
import shutil
import sys
import tomllib


def main():
    lockfile, target = sys.argv[1:]
    home = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    with open(lockfile, "rb") as file:
        packages = tomllib.load(file)["package"]
    sizes = []
    for package in packages:
        if "checksum" not in package:
            continue
        name, version = package["name"], package["version"]
        write_index_file(home, target, name)
        found = glob.glob(f"{home}/registry/cache/*/{name}-{version}.crate")
        if found:
            os.makedirs(f"{target}/crates/{name}", exist_ok=True)
            shutil.copy(found[0], f"{target}/crates/{name}")
            sizes.append(os.path.getsize(found[0]))
    index_files = sum(len(files) for _, _, files in os.walk(f"{target}/index"))
    print(index_files, len(sizes), sum(sizes) // len(sizes))


def write_index_file(home, target, name):
    """Takes the lines out of cargo's cache: a version byte, a number of four bytes and the entity tag, then for each
    version its number and its line. Each text ends with a zero byte."""
    path = index_path(name)
    if os.path.exists(f"{target}/index/{path}"):
        return
    found = glob.glob(f"{home}/registry/index/*/.cache/{path}")
    if not found:
        sys.exit(f"{name} is not in the cache of cargo: run `cargo fetch` first")
    with open(found[0], "rb") as file:
        content = file.read()
    if content[0] != 3:
        sys.exit(f"the cache of cargo has a format that this script does not know: {content[0]}")
    lines = content[5:].split(b"\0")[2::2]
    os.makedirs(os.path.dirname(f"{target}/index/{path}"), exist_ok=True)
    with open(f"{target}/index/{path}", "wb") as file:
        file.write(b"".join(line + b"\n" for line in lines))


def index_path(name):
    name = name.lower()
    if len(name) < 3:
        return f"{len(name)}/{name}"
    return f"3/{name[0]}/{name}" if len(name) == 3 else f"{name[:2]}/{name[2:4]}/{name}"


main()
