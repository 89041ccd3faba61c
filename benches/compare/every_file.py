"""Asks a mirror for every file of an index, and compares each with what git has.

    every_file.py INDEX URL

INDEX is a bare repository of the index, URL the mirror's, like http://127.0.0.1:8080. The mirror must serve the commit that
HEAD names there. The git blob id of each body and the entity tag must be what git lists; every twentieth file is asked
for once more with gzip. Ends with 1 if anything differs. Takes about a minute for 250000 files. Standard library only.
"""

import gzip
import hashlib
import http.client
import json
import multiprocessing
import re
import subprocess
import sys
import time
import urllib.parse

CONNECTIONS = 4
CHUNK = 500
GZIP_EVERY = 20
# The paths that the mirror takes for index files: lower case, in the directory of the name.
NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")

connection = None


def place(name):
    if len(name) < 3:
        return f"{len(name)}/{name}"
    if len(name) == 3:
        return f"3/{name[0]}/{name}"
    return f"{name[:2]}/{name[2:4]}/{name}"


def is_index_file(mode, path):
    name = path.rpartition("/")[2]
    return mode.startswith("100") and NAME.fullmatch(name) is not None and place(name) == path


def connect(url):
    global connection
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=60)


def ask(path, encoding):
    connection.request("GET", "/index/" + urllib.parse.quote(path), headers={"Accept-Encoding": encoding})
    answer = connection.getresponse()
    return answer, answer.read()


def faults_of(file, head, with_gzip):
    """The errors in the answers for one file."""
    mode, blob, path = file
    if not is_index_file(mode, path):
        # config.json is the mirror's own. All other files are hidden.
        answer, _ = ask(path, "identity")
        expected = 200 if path == "config.json" else 404
        if answer.status != expected:
            yield f"{path}: {answer.status}, not {expected}"
        return
    for encoding in ["identity"] + ["gzip"] * with_gzip:
        answer, body = ask(path, encoding)
        suffix = ""
        if answer.getheader("content-encoding") == "gzip":
            suffix = "-gzip"
            body = gzip.decompress(body)
        found = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
        for what, value, expected in (
            ("status", answer.status, 200),
            ("blob id of the body", found, blob),
            ("etag", answer.getheader("etag"), f'"{blob}{suffix}"'),
            ("x-index-commit", answer.getheader("x-index-commit"), head),
        ):
            if value != expected:
                yield f"{path} ({encoding}): {what} {value}, not {expected}"


def compare(work):
    first, files, head = work
    return [
        fault
        for number, file in enumerate(files, first)
        for fault in faults_of(file, head, number % GZIP_EVERY == 0)
    ]


def git(index, *arguments):
    command = ["git", "-C", index, "-c", "safe.directory=*", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


def main():
    index, url = sys.argv[1], sys.argv[2].rstrip("/")
    began = time.monotonic()
    head = git(index, "rev-parse", "HEAD").decode().strip()
    connect(url)
    connection.request("GET", "/readyz")
    report = connection.getresponse().read()
    served = json.loads(report)["index"]["commit"]
    if served != head:
        sys.exit(f"the mirror serves {served}, not {head}")
    files = []
    for line in git(index, "ls-tree", "-r", "-z", "HEAD").split(b"\0")[:-1]:
        description, _, path = line.partition(b"\t")
        mode, _, blob = description.decode().split()
        files.append((mode, blob, path.decode("utf-8", "surrogateescape")))
    work = [(at, files[at : at + CHUNK], head) for at in range(0, len(files), CHUNK)]
    faults = []
    with multiprocessing.Pool(CONNECTIONS, connect, (url,)) as pool:
        for found in pool.imap_unordered(compare, work):
            faults += found
    for fault in faults[:20]:
        print(fault)
    others = sum(not is_index_file(mode, path) for mode, _, path in files)
    print(
        f"{len(files) - others} index files compared with commit {head}, {others} others; {len(faults)} faults; "
        f"{time.monotonic() - began:.0f} s"
    )
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
