#!/usr/bin/env bash
# How many bytes a git client receives from the git index: the first time, and after one publish, with git and with
# version 0 of the protocol, which libgit2 speaks. A proxy between the client and the mirror counts them.
#
#   git_fetch.sh [CRATES]      250000 crates
#
# The index comes from BENCH_INDEX or MAKE_INDEX, or is a simple one: see first_snapshot.sh. It is copied, and the copy
# gets a commit that appends a line to one file.
#
# Needs git, python3 and cargo, and space for five copies of the index in TMPDIR.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

crates=${1:-250000}
need git python3

build
make_own_index "$crates"
serve_index
PUBLIC_URL=https://mirror.example
export PUBLIC_URL
start_mirror 1
wait_until_ready
python3 "$compare/counting_proxy.py" "$port" >"$temporary/proxy" &
started+=($!)
until [ -s "$temporary/proxy" ]; do sleep 0.05; done
through=http://127.0.0.1:$(head -1 "$temporary/proxy")/git/index

received() { # received WHAT COMMAND…
    local what=$1 before began
    shift
    before=$(tail -n +2 "$temporary/proxy" | tail -1)
    began=$(now)
    "$@"
    # The proxy counts when a connection ends.
    sleep 0.5
    echo "$what: $(($(tail -1 "$temporary/proxy") - ${before:-0})) bytes received in $(since "$began") s (half a second of it is this script's)"
}

for version in 2 0; do
    received "full clone, protocol $version" git -c protocol.version=$version clone --quiet --bare "$through" "$temporary/clone-$version"
done
path=$(git -C "$index" ls-tree -r --name-only HEAD | awk '/\/.*\// && !found { print; found = 1 }')
branch=$(git -C "$index" symbolic-ref HEAD)
{
    printf 'commit %s\ncommitter bench <bench@example> 1800000000 +0000\ndata 7\npublish\nfrom %s^0\n' "$branch" "$branch"
    git -C "$index" cat-file blob "HEAD:$path" >"$temporary/file"
    printf '{"name":"%s","vers":"99.0.0","deps":[],"cksum":"%064d","features":{},"yanked":false}\n' "${path##*/}" 0 >>"$temporary/file"
    printf 'M 100644 inline %s\ndata %d\n' "$path" "$(wc -c <"$temporary/file")"
    cat "$temporary/file"
    echo
} | git -C "$index" fast-import --quiet
wait_until_ready "$(git -C "$index" rev-parse HEAD)"
for version in 2 0; do
    received "after one publish, protocol $version" git -c protocol.version=$version -C "$temporary/clone-$version" fetch --quiet origin HEAD:master
done
stop "$process"
