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
    // With a path, because without one the standard library would fork this large process: the child has another `PATH`.
    let program = program.as_ref();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file());
    let mut command = Command::new(found.as_deref().map_or(program, Path::as_os_str));
    command
        .env_clear()
        .env("PATH", path)
        .env("HOME", home)
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    command
}
