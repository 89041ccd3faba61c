//! The arguments, as `clap` reads them. Each subcommand interprets its own.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand as SubcommandArguments};
use clap_complete::Shell;

use super::help::{
    ABOUT_CHECK_CONFIG, ABOUT_COMPLETIONS, ABOUT_EXPLAIN, ABOUT_EXPORT, ABOUT_HEALTHCHECK,
    ABOUT_IMPORT, ABOUT_MAN, ABOUT_PREFETCH, ABOUT_VERIFY, ABOUT_WAIT, about_settings,
};
use crate::build_info::{COMMIT, VERSION};
use crate::prefetch::{CrateSpec, JOBS_DEFAULT, JOBS_MAX};

/// What `--version` prints behind the name of the program.
static VERSION_AND_COMMIT: LazyLock<String> = LazyLock::new(|| format!("{VERSION} ({COMMIT})"));

/// How long `wait` waits if nothing else is said. The first clone of the index of crates.io takes a minute or two.
const WAIT_SECONDS_DEFAULT: u32 = 600;

/// A read-only crates.io mirror: downloads, metadata and the index from one local clone.
#[derive(Debug, Parser)]
#[command(
    name = "crates-io-mirror",
    version = VERSION_AND_COMMIT.as_str(),
    after_help = about_settings(),
    max_term_width = 100
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) subcommand: Option<Subcommand>,
}

/// A subcommand with its arguments.
#[derive(Debug, SubcommandArguments)]
pub(super) enum Subcommand {
    /// Run the server; the same as no subcommand
    Serve,
    /// Fetch crate files into the store before clients ask for them
    Prefetch(Box<PrefetchArguments>),
    /// Hash every file of the store again and report damage
    Verify(VerifyArguments),
    /// Write the index and the crate files into one archive, for a machine without a network
    Export(ExportArguments),
    /// Read an archive that `export` wrote
    Import(ImportArguments),
    /// Say what the policy does with a crate or a version, and why
    Explain(ExplainArguments),
    /// Print the settings and check them
    CheckConfig(CheckConfigArguments),
    /// Ask the running server whether it is alive
    #[command(after_help = ABOUT_HEALTHCHECK)]
    Healthcheck,
    /// Wait until the server is ready
    Wait(WaitArguments),
    /// Print completions for a shell
    #[command(after_help = ABOUT_COMPLETIONS)]
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Print the manual page
    #[command(after_help = ABOUT_MAN)]
    Man,
}

/// The arguments of `prefetch`.
#[derive(Args, Debug)]
#[command(after_help = ABOUT_PREFETCH)]
pub(super) struct PrefetchArguments {
    #[command(flatten)]
    pub(super) selection: SelectionArguments,
    #[command(flatten)]
    pub(super) dependencies: DependencyArguments,
    /// How many files to fetch at a time
    #[arg(short, long, value_name = "N", default_value_t = JOBS_DEFAULT,
        value_parser = clap::value_parser!(u8).range(1..=i64::from(JOBS_MAX)))]
    pub(super) jobs: u8,
    /// Print the wanted versions, one `name@version` a line, and fetch nothing
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,
}

/// The crates to fetch: at least one of these.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(super) struct SelectionArguments {
    /// A crate, like `serde`, `serde@1.0.200` or `serde@^1.0`; or the path of a Cargo.lock
    #[arg(value_name = "CRATE")]
    pub(super) named: Vec<NamedArgument>,
    /// A Cargo.lock file, or a directory that has one
    #[arg(short, long, value_name = "PATH")]
    pub(super) lockfile: Vec<PathBuf>,
    /// A file that lists crates, one CRATE a line; `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(super) crates: Vec<PathBuf>,
    /// Every version of every crate
    #[arg(long, conflicts_with_all = ["named", "lockfile", "crates", "no_deps", "dev_deps"])]
    pub(super) all: bool,
}

/// Which dependencies are fetched, too.
#[derive(Args, Debug)]
pub(super) struct DependencyArguments {
    /// Fetch only the CRATEs named, not what they depend on
    #[arg(long, alias = "no-dependencies")]
    pub(super) no_deps: bool,
    /// Fetch the dev-dependencies of the CRATEs named, too
    #[arg(long, alias = "dev-dependencies", conflicts_with = "no_deps")]
    pub(super) dev_deps: bool,
}

/// A positional argument of `prefetch`.
#[derive(Clone, Debug)]
pub(super) enum NamedArgument {
    /// A crate.
    Crate(CrateSpec),
    /// A path that ends in `.lock`, which no crate's name can.
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
pub(super) struct VerifyArguments {
    /// Remove damaged files, and fetch them again if the index still lists them
    #[arg(long)]
    pub(super) repair: bool,
}

/// The arguments of `export`.
#[derive(Args, Debug)]
#[command(after_help = ABOUT_EXPORT)]
pub(super) struct ExportArguments {
    /// The file to write; `-` for standard output
    #[arg(value_name = "ARCHIVE")]
    pub(super) archive: PathBuf,
    /// Write only what is new since this earlier archive
    #[arg(long, value_name = "EARLIER_ARCHIVE")]
    pub(super) since: Option<PathBuf>,
}

/// The arguments of `import`.
#[derive(Args, Debug)]
#[command(after_help = ABOUT_IMPORT)]
pub(super) struct ImportArguments {
    /// The file to read; `-` for standard input
    #[arg(value_name = "ARCHIVE")]
    pub(super) archive: PathBuf,
    /// Read and check all of the archive, and change nothing
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,
}

/// The arguments of `explain`.
#[derive(Args, Clone, Debug)]
#[command(after_help = ABOUT_EXPLAIN)]
pub(super) struct ExplainArguments {
    /// A crate, like `serde`, `serde@1.0.200` or `serde@^1.0`
    #[arg(value_name = "CRATE")]
    pub(super) named: CrateSpec,
    /// Print one JSON document instead of text
    #[arg(long)]
    pub(super) json: bool,
}

/// The arguments of `check-config`.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(after_help = ABOUT_CHECK_CONFIG)]
pub(super) struct CheckConfigArguments {
    /// Print one JSON document instead of text
    #[arg(long)]
    pub(super) json: bool,
    /// Also ask the upstreams of the index and of crate files
    #[arg(long)]
    pub(super) upstream: bool,
}

/// The arguments of `wait`.
#[derive(Args, Debug)]
#[command(after_help = ABOUT_WAIT)]
pub(super) struct WaitArguments {
    /// How long to wait at most; 0 asks once
    #[arg(long, value_name = "SECONDS", default_value_t = WAIT_SECONDS_DEFAULT)]
    pub(super) timeout: u32,
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
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_subcommand_is_serve() {
        assert!(parse(&[]).unwrap().subcommand.is_none());
        assert!(matches!(
            parse(&["serve"]).unwrap().subcommand,
            Some(Subcommand::Serve)
        ));
    }

    #[test]
    fn prefetch_needs_at_least_one_crate() {
        let refused = parse(&["prefetch"]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::MissingRequiredArgument);
        for good in [
            &["prefetch", "serde"][..],
            &["prefetch", "serde@^1", "a@=1.0.0", "x/Cargo.lock"],
            &["prefetch", "--lockfile", "a", "--lockfile", "b"],
            &["prefetch", "--crates", "-", "-j", "32", "-n"],
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
            &["prefetch", "a", "--jobs", "33"],
            &["prefetch", "se/rde"],
            &["prefetch", "serde@nonsense"],
        ] {
            let refused = parse(bad).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{bad:?}");
        }
    }

    #[test]
    fn every_help_has_exit_codes_or_examples() {
        let mut command = Arguments::command();
        let help = command.render_long_help().to_string();
        assert!(help.contains("Exit codes:") && help.contains("Examples:"));
        for variable in crate::VARIABLES {
            assert!(help.contains(&format!("\n  {variable}\n")), "{variable}");
        }
        for subcommand in command.get_subcommands_mut() {
            let help = subcommand.render_long_help().to_string();
            let name = subcommand.get_name();
            assert!(
                ["serve", "help"].contains(&name)
                    || help.contains("Exit codes:")
                    || help.contains("Examples:"),
                "{name}"
            );
        }
    }

    #[test]
    fn the_document_has_every_subcommand_and_every_option() {
        let document = include_str!("../../docs/command-line.md");
        let command = Arguments::command();
        let documented: Vec<&str> = document
            .lines()
            .filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'))
            .collect();
        let mut defined: Vec<&str> = command
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        assert_eq!(documented.len(), defined.len());
        defined.retain(|name| !documented.contains(name));
        assert!(defined.is_empty(), "{defined:?}");
        for subcommand in command.get_subcommands() {
            let heading = format!("## `{}`", subcommand.get_name());
            let (_, section) = document.split_once(&heading).unwrap();
            let section = section.split("\n## ").next().unwrap();
            let options = subcommand.get_arguments().filter_map(clap::Arg::get_long);
            for option in options.filter(|option| *option != "help") {
                assert!(
                    section.contains(&format!("`--{option}")),
                    "{heading} --{option}"
                );
            }
            for documented in section.split("`--").skip(1) {
                let option = documented.split(['`', ' ']).next();
                let mut options = subcommand.get_arguments().map(clap::Arg::get_long);
                assert!(options.any(|long| long == option), "{heading} {option:?}");
            }
        }
    }

    #[test]
    fn help_and_version_are_no_failures() {
        for argument in ["--help", "--version", "help"] {
            assert_eq!(parse(&[argument]).unwrap_err().exit_code(), 0);
        }
        let shown = |arguments: &[&str]| parse(arguments).unwrap_err().to_string();
        assert_eq!(shown(&["help"]), shown(&["--help"]));
        let command = Arguments::command();
        for subcommand in command.get_subcommands().map(clap::Command::get_name) {
            assert_eq!(shown(&["help", subcommand]), shown(&[subcommand, "--help"]));
        }
        assert_eq!(parse(&["help", "nonsense"]).unwrap_err().exit_code(), 2);
    }
}
