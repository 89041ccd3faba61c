//! How a verb ended, as scripts see it.

use std::process::ExitCode;

/// How a verb ended. The numbers are in `--help`; scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All was done, and all is well.
    Done,
    /// Something is missing, damaged or failed, or was not done at all: standard error says what.
    Incomplete,
    /// The arguments, an input file or the settings are no good. Nothing was done.
    Unusable,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Incomplete => Self::from(1),
            Outcome::Unusable => Self::from(2),
        }
    }
}
