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
every subcommand. Files that are stored by then stay, and the next run goes on from there.

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
               with its dependencies, see below
  Cargo.lock   the path of a Cargo.lock instead of a CRATE is the same as --lockfile
  --lockfile   every package of the lock file that is from the registry of this mirror, and
               nothing else: a lock file is complete
  --crates     a text file with one CRATE a line; `#` begins a comment; `-` is standard input
  --all        every version of every crate, yanked ones included: well over a hundred gigabytes
               for the index of crates.io

Dependencies:
  Each CRATE is fetched with its normal and build dependencies of all platforms and features, and
  with their dependencies in turn: the highest version for every requirement. With few exceptions
  a new project resolves to the same. The Cargo.lock of an existing project is exact. --dev-deps
  adds the dev-dependencies of the CRATEs named. Dependencies on other registries are left out.

What counts as a failure (exit code 1):
  - a package of a lock file that is not in the index, or has another checksum there
  - a CRATE that nothing matches
  - a requirement that nothing matches, unless only optional dependencies lead to it: then it is
    a warning
  - a file that no upstream has, or that could not be fetched
  - a file that others of the same run pushed out again, if STORAGE_MAX_BYTES is set
  Everything else is fetched all the same.

Examples:
  crates-io-mirror prefetch Cargo.lock
  crates-io-mirror prefetch --lockfile one/Cargo.lock --lockfile two/Cargo.lock
  crates-io-mirror prefetch tokio axum@0.8 --dev-deps
  crates-io-mirror prefetch --crates team.txt --jobs 8
  crates-io-mirror prefetch tokio --dry-run > list    a crate list with every version named

It works beside a running server on the same DATA_DIR. It fetches 4 files at a time from the
upstreams of DOWNLOAD_URL; --jobs changes that. Stored files are not fetched again, so a run that
was stopped goes on when it is started again.";

/// Shown below the help of `verify`.
pub(super) const ABOUT_VERIFY: &str = "\
Reads each file of the store, and compares its SHA-256 with its name. The checksums of damaged
files go to standard output, one a line.

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
run `prefetch` first.

It works beside a running server on the same DATA_DIR, whatever its DOWNLOAD_MODE.

With --since, the archive has only what is new since an earlier archive. Each archive builds on the
one before it, and the other side imports them in the same order. Only the beginning of the earlier
archive is read.

Exit codes:
  0  the archive is complete
  1  there is no archive: something could not be read or written
  2  the arguments or the settings are bad, or the earlier archive is no archive

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

An earlier archive can be imported again for lost files. It does not take the index back.

Run the server behind the gap with DOWNLOAD_MODE=offline; GIT_REPO_URL need not be set. A running
server shows the import after a minute or so. Beside a server that fetches, an import is refused.

Exit codes:
  0  all of the archive was imported
  1  it is truncated, files in it are damaged, or not all could be stored
  2  it is no archive, or builds on one that was not imported; nothing has changed

Examples:
  crates-io-mirror import monday.tar
  crates-io-mirror import tuesday.tar --dry-run    check the archive, and change nothing";

/// Shown below the help of `check-config`.
pub(super) const ABOUT_CHECK_CONFIG: &str = "\
Prints one line `NAME = value` for each variable, with secrets hidden. Then it prints how upstreams
are reached, if there are proxies (http_proxy, https_proxy, all_proxy, no_proxy). Then it checks:
  - DATA_DIR can be written
  - GIT_REPO_URL can be read, if it is a path
  - there are CA certificates, if an upstream needs them
  - git is there, if PUBLIC_URL needs it
  - the files of TLS can be read
  - DOWNLOAD_MODE=cache: STORAGE_URL can be listed, and a file of a few bytes can be written, read
    and removed; with `offline` it can be listed. The cloud's own variables are printed, too
It asks no upstream. Warnings do not change the exit code.

Exit codes:
  0  the settings are good
  1  the settings are good, but something that they need is missing
  2  a setting is bad; the server would print the same line";
