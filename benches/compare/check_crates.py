#!/usr/bin/env python3
"""Whether a server sends crate files as they are: check_crates.py PORT NAMES PATHS WWW

NAMES and PATHS are files with as many lines: the crates, and what this server calls them. WWW has the files. A mirror in
the mode `cache` holds all of them after this. Standard library only.
"""
import http.client
import sys


def main():
    port, names, paths, www = sys.argv[1:]
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
    names, paths = open(names).read().split(), open(paths).read().split()
    assert len(names) == len(paths) > 0
    for name, path in zip(names, paths):
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        with open(f"{www}/crates/{name}/{name}-1.0.0.crate", "rb") as file:
            if answer.status != 200 or body != file.read():
                sys.exit(f"{path}: {answer.status}, {len(body)} bytes: {body[:200] if answer.status != 200 else ''}")


main()
