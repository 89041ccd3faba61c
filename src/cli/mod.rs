//! The command line: `serve` and the verbs beside it, their help, what they print, and their exit codes.
//!
//! Verbs are small programs over the same settings and the same `DATA_DIR` as the server. Each comes in two parts: a
//! pure one that decides (what to fetch, how an archive is laid out), and one that acts through traits, so that tests
//! need no network. Results go to standard output, progress and complaints to standard error. What does not live here:
//! git, the store of crate files, HTTP.

pub(crate) mod args;
pub(crate) mod carry;
pub(crate) mod commands;
pub(crate) mod help;
pub(crate) mod keeping;
pub(crate) mod opening;
pub(crate) mod outcome;
pub(crate) mod progress;
pub(crate) mod run;
pub(crate) mod terminal;
pub(crate) mod watch;

pub use run::{Invocation, Verb, read_command_line};
