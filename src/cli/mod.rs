//! The command line: arguments, help, terminal and exit codes, with one file for each subcommand.
//!
//! All subcommands use the settings and the `DATA_DIR` of the server. Results go to standard output, progress and complaints
//! to standard error. The work itself is done by other modules, which print nothing.

mod args;
mod commands;
mod context;
mod help;
mod own_server;
mod progress;
mod run;
mod terminal;
#[cfg(test)]
mod testing;

pub use run::run_command_line;
