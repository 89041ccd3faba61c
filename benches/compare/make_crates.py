#!/usr/bin/env python3
"""An index and the crate files that it lists, for measuring: make_crates.py DIR [COUNTxBYTES ...]

DIR/files/crates/NAME/NAME-1.0.0.crate are random bytes, the same for the same arguments; DIR/index.git is a bare
repository that lists them. Names are b{BYTES}-{NUMBER}.
"""
import hashlib
import json
import os
import random
import subprocess
import sys


def main():
    target, sizes = sys.argv[1], sys.argv[2:] or ["100x50000", "10x1000000", "4x10000000"]
    os.makedirs(target, exist_ok=True)
    index = os.path.join(target, "index.git")
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=master", index], check=True)
    stream = subprocess.Popen(["git", "-C", index, "fast-import", "--quiet"], stdin=subprocess.PIPE)
    files = []
    for size in sizes:
        count, length = map(int, size.split("x"))
        for number in range(count):
            name = f"b{length}-{number}"
            checksum = write(os.path.join(target, "files", "crates", name), f"{name}-1.0.0.crate", length, name)
            line = {"name": name, "vers": "1.0.0", "deps": [], "cksum": checksum, "features": {}, "yanked": False}
            files.append((f"{name[:2]}/{name[2:4]}/{name}", json.dumps(line, separators=(",", ":")) + "\n"))
    files.append(("config.json", '{"dl":"http://127.0.0.1/","api":"http://127.0.0.1"}\n'))
    out = stream.stdin
    out.write(b"commit refs/heads/master\ncommitter bench <bench@example> 1700000000 +0000\ndata 5\nindex\n")
    for path, content in files:
        data = content.encode()
        out.write(f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n")
    out.close()
    sys.exit(stream.wait())


def write(directory, name, length, seed):
    os.makedirs(directory, exist_ok=True)
    source, digest = random.Random(seed), hashlib.sha256()
    with open(os.path.join(directory, name), "wb") as file:
        while length:
            part = source.randbytes(min(length, 1 << 20))
            file.write(part)
            digest.update(part)
            length -= len(part)
    return digest.hexdigest()


main()
