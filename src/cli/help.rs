//! What `--help` teaches beyond the list of options: meaning, exit codes, examples.

use crate::config::settings_help;

/// Shown below the help of the program.
pub(super) fn about_settings() -> String {
    format!(
        "Settings:
  Every setting is an environment variable, the same for the server and for every subcommand. README
  explains them. `crates-io-mirror check-config` prints and checks them.

{}
{EXIT_CODES_AND_EXAMPLES}",
        settings_help()
    )
}

const EXIT_CODES_AND_EXAMPLES: &str = "\
Exit codes:
  0  done, and all is well
  1  something is missing, damaged or failed, or could not be done: standard error says what
  2  the arguments, an input file or the settings are no good; nothing was done

Results go to standard output, progress and complaints to standard error. Ctrl-C and SIGTERM stop
every verb; what is done by then stays done, and most verbs go on from there when run again.

Examples:
  crates-io-mirror                              serve with the settings of the environment
  crates-io-mirror prefetch Cargo.lock          hold all that this project needs
  crates-io-mirror export crates.tar            take all of it to a machine without a network";

/// Shown below the help of `prefetch`.
pub(super) const ABOUT_PREFETCH: &str = "\
What is fetched:
  CRATE        `serde`          the highest version
               `serde@1.0.200`  this version, even if it was yanked
               `serde@^1.0.5`   the highest version that cargo would pick for this requirement;
                                any requirement of Cargo.toml will do: `'serde@>=1, <1.0.100'`
               with all that it depends on, see below
  Cargo.lock   the path of a Cargo.lock instead of a CRATE is the same as --lockfile
  --lockfile   every package that the lock file has from the registry of the index here, and
               nothing else: a lock file is complete
  --crates     a text file with one CRATE a line; `#` begins a comment; `-` is standard input
  --all        every version of every crate, yanked ones included: well over a hundred gigabytes
               for the index of crates.io

Dependencies:
  For each CRATE, the normal and build dependencies of all platforms and features, and theirs in
  turn: the highest version for every requirement. That is what a new project resolves to, with
  few exceptions; what an existing one needs its Cargo.lock says exactly. --dev-deps adds what
  the tests of the CRATEs named need. Dependencies on other registries are passed over.

What counts as a failure (exit code 1):
  - a package of a lock file that is not in the index, or has another checksum there
  - a CRATE that nothing matches
  - a requirement that nothing matches, unless only optional dependencies lead to it: then it is
    a warning
  - a file that no upstream has, or that could not be fetched
  - a file that was pushed out again by others of the same run, where STORAGE_MAX_BYTES is set
  Everything else is fetched all the same.

Examples:
  crates-io-mirror prefetch Cargo.lock
  crates-io-mirror prefetch --lockfile one/Cargo.lock --lockfile two/Cargo.lock
  crates-io-mirror prefetch tokio axum@0.8 --dev-deps
  crates-io-mirror prefetch --crates team.txt --jobs 8
  crates-io-mirror prefetch tokio --dry-run > list    a crate list with every version named

It works beside a running server on the same DATA_DIR. It asks the upstreams of DOWNLOAD_URL for
4 files at a time unless --jobs says otherwise. What is held already is not asked for, so a run
that was stopped goes on where it was when it is started again.";

/// Shown below the help of `verify`.
pub(super) const ABOUT_VERIFY: &str = "\
Each file of the store is read, and its SHA-256 compared with the name that it is kept under.
The checksums of damaged files go to standard output, one a line.

Exit codes:
  0  every file is what it should be, or --repair has seen to it
  1  files are damaged, or could not be read or repaired
  2  the arguments or the settings are no good

Examples:
  crates-io-mirror verify
  crates-io-mirror verify --repair";

/// Shown below the help of `export`.
pub(super) const ABOUT_EXPORT: &str = "\
The archive is one tar file with the index as it is now and every crate file of the store. It is
written to a temporary name beside ARCHIVE and renamed when it is complete. Only what the store
holds is exported: `prefetch` comes first.

It works beside a running server on the same DATA_DIR, whatever its DOWNLOAD_MODE.

With --since, only what is new since an earlier archive is written. Each archive builds on the one
before it, and the other side imports them in the same order. Of the earlier archive only the
beginning is read.

Exit codes:
  0  the archive is complete
  1  there is no archive: something could not be read or written
  2  the arguments or the settings are no good, or the earlier archive is not one

Examples:
  crates-io-mirror export monday.tar
  crates-io-mirror export tuesday.tar --since monday.tar
  crates-io-mirror export - | ssh inside crates-io-mirror import -";

/// Shown below the help of `import`.
pub(super) const ABOUT_IMPORT: &str = "\
Reads an archive that `export` wrote, once from the beginning to the end, so it may come from a
pipe. The SHA-256 of every crate file is checked; a wrong one is passed over and reported. The
index is switched to the new one when all of the archive was read. An archive made with --since is
refused if the one that it builds on was not imported: the complaint says which one that is.

An earlier archive, imported again for files that were lost, does not take the index back.

Run the server behind the gap with DOWNLOAD_MODE=offline; GIT_REPO_URL need not be set. One that is
running shows what was imported after a minute or so. Beside one that fetches, an import is refused.

Exit codes:
  0  all of the archive was imported
  1  it breaks off, files in it are damaged, or not all could be stored
  2  it is no archive, or builds on one that was not imported; nothing has changed

Examples:
  crates-io-mirror import monday.tar
  crates-io-mirror import tuesday.tar --dry-run    check the archive, and change nothing";

/// Shown below the help of `check-config`.
pub(super) const ABOUT_CHECK_CONFIG: &str = "\
Prints one line `NAME = value` for each variable, secrets hidden, then how upstreams are reached if
there are proxies (http_proxy, https_proxy, all_proxy, no_proxy), then checks whether DATA_DIR can
be written, whether GIT_REPO_URL can be read if it is a path, whether there are CA certificates, whether git is there if PUBLIC_URL needs it, and whether the files of TLS can be read.
With DOWNLOAD_MODE=cache or offline it prints the cloud's own variables that count, too, and tries
the store of STORAGE_URL: whether it can be listed and, for `cache`, whether a file of a few bytes
can be written, read and removed. No upstream is asked. Warnings do not change the exit code.

Exit codes:
  0  the settings are good
  1  the settings are good in themselves, but something that they need is not there
  2  a setting is bad; the one line is what the server would print";
