//! The program: from the command line to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    crates_io_mirror::run_command_line(std::env::args_os())
}
