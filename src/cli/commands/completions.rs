//! `completions`: a script that completes the command line in a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::args::Arguments;

/// The script for a shell.
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}
