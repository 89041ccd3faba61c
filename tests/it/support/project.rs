//! A project for cargo: a package with dependencies, and a cargo home that is set up for an index.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use super::hermetic;

/// A program that depends on crates of an index, with a cargo home of its own.
pub(crate) struct Project {
    root: TempDir,
    settings: &'static [(&'static str, &'static str)],
}

impl Project {
    /// A program that prints the number of its crates, which `under_score` counts.
    pub(crate) fn new(index: &str, settings: &'static [(&'static str, &'static str)]) -> Self {
        Self::with(
            index,
            settings,
            "under_score = \"1\"\n",
            "println!(\"{}\", under_score::count());",
        )
    }

    /// A program with this source and these dependencies.
    pub(crate) fn with(
        index: &str,
        settings: &'static [(&'static str, &'static str)],
        dependencies: &str,
        main: &str,
    ) -> Self {
        let project = Self {
            root: TempDir::new().unwrap(),
            settings,
        };
        project.write(
            "home/config.toml",
            &format!(
                "[source.crates-io]\nreplace-with = \"mirror\"\n\n[source.mirror]\nregistry = \"{index}\"\n\n\
                 [registries.mirror]\nindex = \"{index}\"\n"
            ),
        );
        project.write(
            "package/Cargo.toml",
            // With less output of the compiler, the build is faster.
            &format!(
                "[package]\nname = \"user\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n\
                 [profile.dev]\ndebug = false\nincremental = false\n\n[dependencies]\n{dependencies}"
            ),
        );
        project.write(
            "package/src/main.rs",
            &format!("fn main() {{\n{main}\n}}\n"),
        );
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Sets the whole configuration of this cargo.
    pub(crate) fn set_up(&self, toml: &str) {
        self.write("home/config.toml", toml);
    }

    /// The path of a program that `cargo install --root installed` has installed.
    pub(crate) fn installed(&self, name: &str) -> PathBuf {
        self.path("package/installed/bin").join(name)
    }

    /// Adds to cargo's configuration.
    pub(crate) fn configure(&self, toml: &str) {
        let path = self.path("home/config.toml");
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{config}\n{toml}")).unwrap();
    }

    /// Removes everything except the configuration from the cargo home, as on a machine that has never built anything.
    pub(crate) fn empty_home(&self) {
        let config = std::fs::read_to_string(self.path("home/config.toml")).unwrap();
        std::fs::remove_dir_all(self.path("home")).unwrap();
        self.write("home/config.toml", &config);
    }

    /// Runs the program, and returns what it prints.
    pub(crate) fn program_says(&self) -> String {
        let program = self.path("package/target/debug/user");
        let output = Command::new(program).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// The path of the lock file.
    pub(crate) fn lock_path(&self) -> PathBuf {
        self.path("package/Cargo.lock")
    }

    /// The lock file.
    pub(crate) fn lock_file(&self) -> String {
        std::fs::read_to_string(self.lock_path()).unwrap()
    }

    /// Runs cargo in the package.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// A cargo command in the package.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let cargo = Path::new(env!("CARGO"));
        let other = variable("MIRROR_TEST_CARGO");
        let program = other.as_deref().unwrap_or(cargo.as_os_str());
        let mut command = hermetic(program, self.root.path());
        if let Some(libraries) = variable("MIRROR_TEST_CARGO_LIBRARIES") {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        // rustc is beside cargo, where rustup keeps both. The proxies of rustup on PATH need a home that does not exist
        // here.
        let rustc = cargo.with_file_name("rustc");
        if rustc.exists() {
            command.env("RUSTC", rustc);
        }
        command
            .current_dir(self.path("package"))
            .env("CARGO_HOME", self.path("home"))
            .envs(self.settings.iter().copied())
            .args(arguments);
        command
    }
}

/// A variable that `.ci/cargo-versions` sets, to run the tests with another cargo than the one that builds them.
fn variable(name: &str) -> Option<OsString> {
    #[expect(
        clippy::disallowed_methods,
        reason = "these are settings of the tests, not of the mirror"
    )]
    std::env::var_os(name)
}

/// Checks that a command has succeeded. Otherwise the test shows its output.
#[track_caller]
pub(crate) fn succeeds(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
