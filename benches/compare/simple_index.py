"""Writes an index of so many crates, each with one version, as a stream for `git fast-import`.

    simple_index.py CRATES | git fast-import

Simpler than a real index: names are evenly spread, and every file has one line. Standard library only.
"""

import hashlib
import json
import sys


def main():
    out = sys.stdout.buffer
    out.write(b"commit refs/heads/master\ncommitter bench <bench@example> 1700000000 +0000\ndata 5\nindex\n")
    write(out, "config.json", json.dumps({"dl": "https://mirror.example/api/v1/crates"}))
    for number in range(int(sys.argv[1])):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        # The first character must be a letter, so that crates.io would accept the name.
        name = "".join(chr(ord("a") + int(digit, 16)) for digit in digest[:6]) + str(number)
        line = {"name": name, "vers": "1.0.0", "deps": [], "cksum": digest, "features": {}, "yanked": False}
        write(out, f"{name[:2]}/{name[2:4]}/{name}", json.dumps(line, separators=(",", ":")))


def write(out, path, text):
    data = (text + "\n").encode()
    out.write(b"M 100644 inline %b\ndata %d\n%b\n" % (path.encode(), len(data), data))


if __name__ == "__main__":
    main()
