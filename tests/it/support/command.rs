//! Child processes that do not see the settings of the machine.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// A command with only `PATH` and a home of its own in its environment.
pub(crate) fn hermetic(program: impl AsRef<OsStr>, home: &Path) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "PATH is where git, cargo's linker and sh are; nothing else is passed on"
    )]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", path)
        .env("HOME", home)
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    command
}
