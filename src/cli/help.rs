//! The texts of `--help` below the list of options: meaning, exit codes, examples.

use crate::config::settings_help;

/// Shown below the help of the program.
pub(super) fn about_settings() -> String {
    format!(
        "Settings:
  Every setting is an environment variable, the same for the server and for every subcommand.
  docs/configuration.md explains them. `crates-io-mirror check-config` prints and checks them.

{}
{EXIT_CODES_AND_EXAMPLES}",
        settings_help()
    )
}

const EXIT_CODES_AND_EXAMPLES: &str = "\
Exit codes:
  0  done, without problems
  1  something is missing, damaged or failed, or could not be done: standard error says what
  2  the arguments, an input file or the settings are bad; nothing was done

Results go to standard output, progress and problems to standard error. Ctrl-C and SIGTERM stop
every subcommand. Files that are stored by then stay, and the next run continues from there.

Examples:
  crates-io-mirror                              serve with the settings of the environment
  crates-io-mirror prefetch Cargo.lock          store everything that this project needs
  crates-io-mirror export crates.tar            take everything to a machine without a network";

/// Shown below the help of `prefetch`.
pub(super) const ABOUT_PREFETCH: &str = "\
What is fetched:
  CRATE        `serde`          the highest version
               `serde@1.0.200`  this version, even if it was yanked
               `serde@^1.0.5`   the highest version that cargo would pick for this requirement;
                                every requirement of Cargo.toml works: `'serde@>=1, <1.0.100'`
               each with its dependencies, see below
  Cargo.lock   the path of a Cargo.lock instead of a CRATE is the same as --lockfile
  --lockfile   every package of the lock file that is from the registry of this mirror, and
               nothing else: a lock file is complete
  --crates     a text file with one CRATE a line; `#` begins a comment; `-` is standard input
  --all        every version of every crate, yanked ones included: well over a hundred gigabytes
               for the index of crates.io

Dependencies:
  Each CRATE is fetched with its normal and build dependencies of all platforms and features, and
  with their dependencies in turn: the highest version for every requirement. A new
  project resolves to the same versions, with few exceptions. The Cargo.lock of an existing project is exact. --dev-deps
  adds the dev-dependencies of the CRATEs named. Dependencies on other registries are left out.

What counts as a failure (exit code 1):
  - a package of a lock file that is not in the index, or has another checksum there
  - a CRATE that nothing matches
  - a requirement that nothing matches, unless only optional dependencies lead to it: then it is
    a warning
  - a package of a lock file, or a CRATE with its version, that the policy denies
  - a file that no upstream has, or that could not be fetched
  - a file that the same run removed again because of STORAGE_MAX_BYTES
  All other files are fetched.

Examples:
  crates-io-mirror prefetch Cargo.lock
  crates-io-mirror prefetch --lockfile one/Cargo.lock --lockfile two/Cargo.lock
  crates-io-mirror prefetch tokio axum@0.8 --dev-deps
  crates-io-mirror prefetch --crates team.txt --jobs 8
  crates-io-mirror prefetch tokio --dry-run > list    a crate list with every version named

The policy counts as it does for clients: dependencies resolve to versions that are not held, and
denied files are not fetched. A held version is fetched if a lock file or a CRATE names it, and
with --all.

It works beside a running server on the same DATA_DIR. It fetches 4 files at a time from the
upstreams of DOWNLOAD_URL; --jobs changes that. Stored files are not fetched again, so a run that
was stopped continues when you start it again.";

/// Shown below the help of `verify`.
pub(super) const ABOUT_VERIFY: &str = "\
Reads each file of the store, and compares its SHA-256 with its name. The checksums of damaged
files go to standard output, one a line.

If the policy may deny files, standard error also says which stored files it denies, by the index
that lies in DATA_DIR. They are not damaged and stay. A damaged file that the policy denies is not
fetched again.

Exit codes:
  0  no file is damaged, or --repair has repaired all
  1  files are damaged, or could not be read or repaired
  2  the arguments or the settings are bad

Examples:
  crates-io-mirror verify
  crates-io-mirror verify --repair";

/// Shown below the help of `export`.
pub(super) const ABOUT_EXPORT: &str = "\
The archive is one tar file with the current index and every crate file of the store. It is written
to a temporary name beside ARCHIVE and renamed when it is complete. Only stored files are exported:
run `prefetch` first. Files that the policy denies are left out, and the last line counts them. The
index is exported as the upstream has it: the server on the other side applies its own policy.

It works beside a running server on the same DATA_DIR, whatever its DOWNLOAD_MODE.

With --since, the archive has only what is new since an earlier archive. Each archive builds on the
one before it, and the other side imports them in the same order. Only the beginning of the earlier
archive is read.

Exit codes:
  0  the archive is complete
  1  there is no archive: something could not be read or written
  2  the arguments or the settings are bad, or the earlier file is not an archive

Examples:
  crates-io-mirror export monday.tar
  crates-io-mirror export tuesday.tar --since monday.tar
  crates-io-mirror export - | ssh inside crates-io-mirror import -";

/// Shown below the help of `import`.
pub(super) const ABOUT_IMPORT: &str = "\
Reads an archive that `export` wrote, once from the beginning to the end, so it may come from a
pipe. Every crate file is checked against its SHA-256; a damaged one is left out and reported. The
index is replaced after all of the archive was read. An archive made with --since is refused if the
archive that it builds on was not imported: the message says which one that is.

An earlier archive can be imported again for lost files. The index does not become older.

Run the server behind the gap with DOWNLOAD_MODE=offline; GIT_REPO_URL need not be set. A running
server shows the import after about a minute. `import` refuses to run beside a server that fetches.

Exit codes:
  0  all of the archive was imported
  1  it is truncated, files in it are damaged, or not all could be stored
  2  it is not an archive, or builds on one that was not imported; nothing has changed

Examples:
  crates-io-mirror import monday.tar
  crates-io-mirror import tuesday.tar --dry-run    check the archive, and change nothing";

/// Shown below the help of `explain`.
pub(super) const ABOUT_EXPLAIN: &str = "\
Says whether a version is allowed, held, denied or frozen, by which rule, why, and until when. It
decides as a server with the same settings: by the index, the advisories and the memory of the
yank guard in DATA_DIR, and by POLICY_FILE as it is now. A running server reads that file at its
next refresh.

It fetches nothing and writes nothing. It works beside a running server, and on a read-only
DATA_DIR.

With --json it prints what the server answers to /policy/CRATE/VERSION or, without an exact
version, to /policy/CRATE.

Exit codes:
  0  it was explained, whatever the state is
  1  there is no such crate or version, or there is no index
  2  the arguments or the settings are bad

Examples:
  crates-io-mirror explain serde@1.0.200      one version
  crates-io-mirror explain serde              all versions
  crates-io-mirror explain 'serde@>=1.0.200'  the versions that meet a requirement
  crates-io-mirror explain serde --json | jq '.versions[] | select(.state != \"allowed\")'";

/// Shown below the help of `check-config`.
pub(super) const ABOUT_CHECK_CONFIG: &str = "\
Prints one line `NAME = value` for each variable, with secrets hidden. Then it prints how upstreams
are reached, if there are proxies (http_proxy, https_proxy, all_proxy, no_proxy). Then it checks:
  - DATA_DIR can be written
  - GIT_REPO_URL can be read, if it is a path
  - there are CA certificates, if an upstream needs them
  - git is installed, if PUBLIC_URL is set
  - the files of TLS can be read
  - DOWNLOAD_MODE=cache: STORAGE_URL can be listed, and a file of a few bytes can be written, read
    and removed; with `offline` it can be listed. The cloud provider's variables are printed, too
  - POLICY_FILE can be read
If there is a policy, it counts how many versions of the index in DATA_DIR the policy holds, denies
and keeps unyanked. That reads the whole index, which takes some seconds. Without an index it counts
nothing.
Warnings do not change the exit code.

With --upstream it also asks these at the same time, for at most 30 s:
  - GIT_REPO_URL for its list of references
  - each URL in DOWNLOAD_URL for a file; 5xx, 401 and 407 count as failures, any other answer is good
  - DOWNLOAD_MODE=offline: neither of them, except for an index on this machine
It prints one line for each of them and for the store: ok or failed, with the time.

With --json it prints one JSON document with the same content, and no text:
  ok         whether there are no errors
  settings   for each variable its value (null: not set), default and source
  variables  the cloud's own variables that the store uses
  upstreams  with --upstream: name, target, ok, milliseconds and error of each
  policy     with a policy and an index: policy_time, advisories (their commit) and versions (counts)
  warnings, errors   lists of texts

Exit codes:
  0  the settings are good
  1  the settings are valid, but something that they need is missing
  2  a setting is bad; the server would print the same line";

/// Shown below the help of `healthcheck`.
pub(super) const ABOUT_HEALTHCHECK: &str = "\
Asks /livez of the server on this machine. It reads PORT, BIND_ADDRESS and TLS_CERT, as the server
does. With TLS it does not check the certificate, because that is for the server's public name. It
connects only to this machine, and sends no secret. It is meant for HEALTHCHECK of containers.

Exit codes:
  0  the server is alive
  1  it is not, or did not answer within 5 s: one line on standard error says why";

/// Shown below the help of `wait`.
pub(super) const ABOUT_WAIT: &str = "\
Asks /readyz of the server on this machine until it is ready. The server may start later. Standard
error says what it waits for. It reads the same variables as `healthcheck`.

Exit codes:
  0  the server is ready
  1  the time is up
  2  the arguments or the settings are bad

Examples:
  crates-io-mirror wait
  crates-io-mirror wait --timeout 60";

/// Shown below the help of `completions`.
pub(super) const ABOUT_COMPLETIONS: &str = "\
Examples:
  crates-io-mirror completions bash > /usr/share/bash-completion/completions/crates-io-mirror
  crates-io-mirror completions zsh > /usr/share/zsh/vendor-completions/_crates-io-mirror
  crates-io-mirror completions fish > ~/.config/fish/completions/crates-io-mirror.fish";

/// Shown below the help of `man`.
pub(super) const ABOUT_MAN: &str = "\
Examples:
  crates-io-mirror man | man -l -
  crates-io-mirror man > /usr/local/share/man/man1/crates-io-mirror.1";
