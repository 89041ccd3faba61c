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
    // clap_complete 4.6.11 writes the hyphens of the program's name in two ways into the script for bash, which then completes
    // no options of subcommands.
    String::from_utf8_lossy(&script)
        .replace("crates__subcmd__io__subcmd__mirror", "crates__io__mirror")
        .into_bytes()
}
