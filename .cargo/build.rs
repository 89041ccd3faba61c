//! Tells the program from which commit it was built, as the environment variable `MIRROR_COMMIT` of the compiler.

#![expect(
    clippy::disallowed_methods,
    reason = "a build script gets its settings from the environment"
)]

use std::process::Command;

fn main() {
    // Heroku builds without a repository and sets this variable. Container builds set it, too.
    println!("cargo::rerun-if-env-changed=SOURCE_VERSION");
    println!("cargo::rerun-if-changed=.cargo/build.rs");
    let commit = std::env::var("SOURCE_VERSION").ok().or_else(of_repository);
    let commit = commit.filter(|commit| commit.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let short = commit.as_deref().and_then(|commit| commit.get(..12));
    println!(
        "cargo::rustc-env=MIRROR_COMMIT={}",
        short.unwrap_or("unknown")
    );
}

/// The commit that is checked out. `None` if this is not a git repository of its own: an unpacked archive may lie in
/// somebody else's.
fn of_repository() -> Option<String> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let here = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    if std::path::Path::new(&top).canonicalize().ok()?
        != std::path::Path::new(&here).canonicalize().ok()?
    {
        return None;
    }
    // The log of HEAD changes with each commit and each checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
