//! What can be typed, and the help that teaches it.
//!
//! These are the raw arguments, as `clap` reads them; each verb turns its own into what it works with.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::prefetch::{CrateSpec, JOBS_DEFAULT, JOBS_MAX};

/// Shown below the help of the program.
const ABOUT_SETTINGS: &str = "\
Settings:
  Everything that can be set is an environment variable, the same for the server and for every verb:
  GIT_REPO_URL (the index to follow), DATA_DIR (where it is kept), PORT, PUBLIC_URL and others, explained
  in README. `crates-io-mirror check-config` prints them all and says whether they are good.

Exit codes:
  0  done, and all is well
  1  something is missing, damaged or failed, or could not be done: standard error says what
  2  the arguments, an input file or the settings are no good; nothing was done

Results go to standard output, progress and complaints to standard error. Ctrl-C and SIGTERM stop every
verb; what is done by then stays done, and the verb goes on from there when it is run again.

Examples:
  crates-io-mirror                              serve with the settings of the environment
  crates-io-mirror prefetch Cargo.lock          hold all that this project needs
  crates-io-mirror export crates.tar            take index and crates to a machine without a network";

/// Shown below the help of `prefetch`.
const ABOUT_PREFETCH: &str = "\
What is fetched:
  CRATE          `serde`          the highest version
                 `serde@1.0.200`  this version, even if it was yanked
                 `serde@^1.0.5`   the highest version that cargo would pick for this requirement; any
                                  requirement of Cargo.toml will do: `serde@1.0`, `'serde@>=1, <1.0.100'`
                 with all that it depends on, see below
  Cargo.lock     a path to a Cargo.lock, or to a directory that has one, is what --lockfile takes too
  --lockfile     every package that the lock file has from a registry, and nothing else: a lock file
                 is complete
  --crates       a text file with one CRATE a line; `#` begins a comment; `-` reads standard input
  --all          every version of every crate, yanked ones included. That is more than a terabyte for
                 the index of crates.io

Dependencies:
  For each CRATE, the normal and build dependencies of all platforms and features, and theirs in turn: the
  highest version for every requirement. That is what a new project resolves to, with few exceptions; for
  an existing one its Cargo.lock says it exactly. Dev-dependencies are needed to run the tests of a crate,
  not to build with it: --dev-deps adds those of the CRATEs named.

What counts as a failure (exit code 1):
  A package of a lock file that is not in the index, or with another checksum there. A CRATE that nothing
  matches. A requirement that nothing matches, unless only an optional dependency leads to it: that is a
  warning. A file that no upstream has, or that could not be fetched. Everything else is fetched all the same.

Examples:
  crates-io-mirror prefetch Cargo.lock
  crates-io-mirror prefetch --lockfile one/Cargo.lock --lockfile two/Cargo.lock
  crates-io-mirror prefetch tokio axum@0.8 --dev-deps
  crates-io-mirror prefetch --crates team.txt --jobs 8
  crates-io-mirror prefetch tokio --dry-run > tokio.txt    a crate list again, with every version named

It asks the upstreams of DOWNLOAD_URL for 4 files at a time. What is held already is not asked for, so a run
that was stopped goes on where it was when it is started again.";

/// Shown below the help of `verify`.
const ABOUT_VERIFY: &str = "\
Each file of the store is read, and its SHA-256 compared with the name that it is kept under. Damaged files
are listed on standard output, one checksum a line.

Exit codes:
  0  every file is what it should be, or --repair has seen to it
  1  files are damaged, or could not be read or repaired

Examples:
  crates-io-mirror verify
  crates-io-mirror verify --repair";

/// Shown below the help of `export`.
const ABOUT_EXPORT: &str = "\
The archive is one tar file with the index as it is now and every crate file of the store. It is written to a
temporary name beside ARCHIVE and renamed when it is complete. Only what the store holds is exported: `prefetch`
comes first.

With --since, only what is new since an earlier archive is written. Each builds on the one before it, and the
other side imports them in the same order. Of the earlier archive only the beginning is read.

Examples:
  crates-io-mirror export monday.tar
  crates-io-mirror export tuesday.tar --since monday.tar
  crates-io-mirror export - | ssh inside crates-io-mirror import -";

/// Shown below the help of `import`.
const ABOUT_IMPORT: &str = "\
Reads an archive that `export` wrote, once from the beginning to the end, so it may come from a pipe. The SHA-256
of every crate file is checked; one that is wrong is passed over and reported (exit code 1). The index is switched
to the new one when all of the archive was read. An archive made with --since is refused if the one that it
builds on was not imported: the complaint says which one that is.

Run the server behind the gap with REFRESH_INTERVAL_SECS=0 and DOWNLOAD_MODE=offline.

Examples:
  crates-io-mirror import monday.tar
  crates-io-mirror import tuesday.tar --dry-run    check the archive, and change nothing";

/// Shown below the help of `check-config`.
const ABOUT_CHECK_CONFIG: &str = "\
Prints one line `NAME = value` for each variable, secrets hidden, then checks what can be checked without the
network: whether DATA_DIR can be written, whether git is there if PUBLIC_URL needs it, whether the files of TLS
can be read. Warnings do not change the exit code.

Exit codes:
  0  the settings are good
  1  the settings are good in themselves, but something that they need is not there
  2  a setting is bad; the one line is what `serve` would print";

/// A read-only crates.io mirror: downloads, metadata and the index from one local clone.
#[derive(Debug, Parser)]
#[command(
    name = "crates-io-mirror",
    version,
    after_help = ABOUT_SETTINGS,
    disable_help_subcommand = true,
    max_term_width = 110
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) verb: Option<VerbArguments>,
}

/// One verb with its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum VerbArguments {
    /// Run the server; the same as no verb at all
    Serve,
    /// Fetch crate files into the store, ahead of need
    Prefetch(Box<PrefetchArguments>),
    /// Hash every file of the store again and report damage
    Verify(VerifyArguments),
    /// Write the index and the crate files into one archive, for a machine without a network
    Export(ExportArguments),
    /// Read an archive that `export` wrote
    Import(ImportArguments),
    /// Print the settings and check them
    #[command(after_help = ABOUT_CHECK_CONFIG)]
    CheckConfig,
}

/// The arguments of `prefetch`.
#[derive(Args, Debug)]
#[command(after_help = ABOUT_PREFETCH)]
pub(crate) struct PrefetchArguments {
    #[command(flatten)]
    pub(crate) selection: SelectionArguments,
    #[command(flatten)]
    pub(crate) dependencies: DependencyArguments,
    /// How many files to fetch at a time
    #[arg(short, long, value_name = "N", default_value_t = JOBS_DEFAULT,
        value_parser = clap::value_parser!(u8).range(1..=i64::from(JOBS_MAX)))]
    pub(crate) jobs: u8,
    /// Print what would be wanted, one `name@version` a line, and fetch nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// What `prefetch` shall fetch: at least one of these.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct SelectionArguments {
    /// A crate, like `serde`, `serde@1.0.200` or `serde@^1.0`; or the path of a Cargo.lock
    #[arg(value_name = "CRATE")]
    pub(crate) named: Vec<NamedArgument>,
    /// A Cargo.lock file, or a directory that has one
    #[arg(short, long, value_name = "PATH")]
    pub(crate) lockfile: Vec<PathBuf>,
    /// A file that lists crates, one CRATE a line; `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) crates: Vec<PathBuf>,
    /// Every version of every crate
    #[arg(long, conflicts_with_all = ["named", "lockfile", "crates", "no_deps", "dev_deps"])]
    pub(crate) all: bool,
}

/// Whose dependencies are fetched, too.
#[derive(Args, Debug)]
pub(crate) struct DependencyArguments {
    /// Fetch only the CRATEs named, not what they depend on
    #[arg(long, alias = "no-dependencies")]
    pub(crate) no_deps: bool,
    /// Fetch the dev-dependencies of the CRATEs named, too
    #[arg(long, alias = "dev-dependencies", conflicts_with = "no_deps")]
    pub(crate) dev_deps: bool,
}

/// What stands on the command line without an option before it.
#[derive(Clone, Debug)]
pub(crate) enum NamedArgument {
    /// A crate.
    Crate(CrateSpec),
    /// A path that ends in `Cargo.lock`, which no crate's name can.
    Lockfile(PathBuf),
}

impl std::str::FromStr for NamedArgument {
    type Err = <CrateSpec as std::str::FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.ends_with(".lock") {
            return Ok(Self::Lockfile(PathBuf::from(text)));
        }
        text.parse().map(Self::Crate)
    }
}

/// The arguments of `verify`.
#[derive(Args, Debug)]
#[command(after_help = ABOUT_VERIFY)]
pub(crate) struct VerifyArguments {
    /// Remove damaged files, and fetch them again if the index still lists them
    #[arg(long)]
    pub(crate) repair: bool,
}

/// The arguments of `export`.
#[derive(Args, Debug)]
#[command(after_help = ABOUT_EXPORT)]
pub(crate) struct ExportArguments {
    /// The file to write; `-` for standard output
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archive: PathBuf,
    /// Write only what is new since this earlier archive
    #[arg(long, value_name = "EARLIER_ARCHIVE")]
    pub(crate) since: Option<PathBuf>,
}

/// The arguments of `import`.
#[derive(Args, Debug)]
#[command(after_help = ABOUT_IMPORT)]
pub(crate) struct ImportArguments {
    /// The file to read; `-` for standard input
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archive: PathBuf,
    /// Read and check all of the archive, and change nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        let program = ["crates-io-mirror"].iter();
        Arguments::try_parse_from(program.chain(arguments))
    }

    #[test]
    fn the_definitions_hold_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_verb_is_serve() {
        assert!(parse(&[]).unwrap().verb.is_none());
        assert!(matches!(
            parse(&["serve"]).unwrap().verb,
            Some(VerbArguments::Serve)
        ));
    }

    #[test]
    fn prefetch_wants_to_be_told_what() {
        let refused = parse(&["prefetch"]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::MissingRequiredArgument);
        for good in [
            &["prefetch", "serde"][..],
            &["prefetch", "serde@^1", "a@=1.0.0", "x/Cargo.lock"],
            &["prefetch", "--lockfile", "a", "--lockfile", "b"],
            &["prefetch", "--crates", "-", "-j", "64", "-n"],
            &["prefetch", "--all"],
            &["prefetch", "a", "--no-dependencies"],
            &["prefetch", "a", "--dev-dependencies"],
        ] {
            assert!(parse(good).is_ok(), "{good:?}");
        }
        for bad in [
            &["prefetch", "--all", "serde"][..],
            &["prefetch", "--all", "--lockfile", "a"],
            &["prefetch", "--all", "--no-deps"],
            &["prefetch", "a", "--no-deps", "--dev-deps"],
            &["prefetch", "a", "--jobs", "0"],
            &["prefetch", "a", "--jobs", "65"],
            &["prefetch", "se/rde"],
            &["prefetch", "serde@nonsense"],
        ] {
            let refused = parse(bad).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{bad:?}");
        }
    }

    #[test]
    fn every_help_teaches_with_exit_codes_or_examples() {
        let mut command = Arguments::command();
        let help = command.render_long_help().to_string();
        assert!(help.contains("Exit codes:") && help.contains("Examples:"));
        for verb in command.get_subcommands_mut() {
            let help = verb.render_long_help().to_string();
            let name = verb.get_name();
            assert!(
                name == "serve" || help.contains("Exit codes:") || help.contains("Examples:"),
                "{name}"
            );
        }
    }

    #[test]
    fn help_and_version_are_no_failures() {
        for argument in ["--help", "--version"] {
            assert_eq!(parse(&[argument]).unwrap_err().exit_code(), 0);
        }
    }
}
