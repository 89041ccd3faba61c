//! A real git repository with an index.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;

use super::{FIXTURES, fixture, hermetic};

/// A bare git repository in a temporary directory.
pub(crate) struct GitIndex {
    root: TempDir,
}

impl GitIndex {
    /// A repository without a commit.
    pub(crate) fn empty() -> Self {
        let index = Self {
            root: TempDir::new().unwrap(),
        };
        let path = index.path();
        let init = ["init", "--quiet", "--bare", "--initial-branch=master"];
        index.run(&[&init[..], &[path.to_str().unwrap()]].concat(), b"");
        index
    }

    /// A repository with the real index files of [`FIXTURES`], in one commit.
    pub(crate) fn with_fixtures() -> Self {
        let index = Self::empty();
        let mut commit = index.commit();
        for name in FIXTURES {
            commit = commit.crate_file(name, &fixture(name));
        }
        commit.send();
        index
    }

    /// The directory for a server.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// The repository.
    pub(crate) fn path(&self) -> PathBuf {
        self.root.path().join("index.git")
    }

    /// Starts a commit on top of the default branch.
    pub(crate) fn commit(&self) -> Commit<'_> {
        Commit {
            index: self,
            changes: Vec::new(),
        }
    }

    /// Makes a commit that changes nothing, with this author and committer as git writes them (`Name <mail> 1700000000
    /// +0000`) and any message. Returns its id.
    pub(crate) fn bare_commit(&self, author: &str, committer: &str, message: &[u8]) -> String {
        let (tree, parent) = (self.git(&["rev-parse", "HEAD^{tree}"]), self.head());
        let head =
            format!("tree {tree}\nparent {parent}\nauthor {author}\ncommitter {committer}\n\n");
        let object = [head.as_bytes(), message].concat();
        let path = self.path();
        let hash = ["hash-object", "-t", "commit", "-w", "--stdin"];
        let directory = ["--git-dir", path.to_str().unwrap()];
        let commit = self.run(&[&directory[..], &hash].concat(), &object);
        self.git(&["update-ref", "HEAD", &commit]);
        commit
    }

    /// The commit of HEAD.
    pub(crate) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Replaces the history by one commit without parents, as crates.io sometimes does.
    pub(crate) fn squash(&self) {
        let commit = self.git(&["commit-tree", "HEAD^{tree}", "-m", "squash"]);
        self.git(&["update-ref", "HEAD", &commit]);
    }

    /// Moves the default branch back by one commit.
    pub(crate) fn rewind(&self) {
        self.git(&["update-ref", "HEAD", "HEAD~1"]);
    }

    /// Gives the default branch another name, HEAD included.
    pub(crate) fn rename_default_branch(&self, name: &str) {
        let old = self.git(&["symbolic-ref", "--short", "HEAD"]);
        self.git(&["branch", "-m", &old, name]);
        assert_eq!(self.git(&["symbolic-ref", "--short", "HEAD"]), name);
    }

    /// Runs git on the repository, and returns its output.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let path = self.path();
        let directory = ["--git-dir", path.to_str().unwrap()];
        self.run(&[&directory[..], arguments].concat(), b"")
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = hermetic("git", self.root.path());
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "Test")
                .env(format!("GIT_{role}_EMAIL"), "test@mirror.example");
        }
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// Changes that become one commit.
#[must_use = "nothing happens before `send`"]
pub(crate) struct Commit<'a> {
    index: &'a GitIndex,
    /// Commands of `git fast-import`.
    changes: Vec<u8>,
}

impl Commit<'_> {
    /// Sets the index file of a crate.
    pub(crate) fn crate_file(self, name: &str, content: &[u8]) -> Self {
        self.file(&index_path(name), content)
    }

    /// Removes the index file of a crate.
    pub(crate) fn delete_crate(self, name: &str) -> Self {
        let path = index_path(name);
        self.change(format!("D {path}\n").as_bytes())
    }

    /// Sets any file.
    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry("100644", path, content)
    }

    /// Sets a symlink.
    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry("120000", path, target.as_bytes())
    }

    /// Sets a submodule.
    pub(crate) fn submodule(self, path: &str) -> Self {
        let commit = "1".repeat(40);
        self.change(format!("M 160000 {commit} {path}\n").as_bytes())
    }

    /// Makes the commit, and returns its id.
    pub(crate) fn send(self) -> String {
        let branch = self.index.git(&["symbolic-ref", "HEAD"]);
        let mut script = format!(
            "feature done\ncommit {branch}\ncommitter Test <test@mirror.example> 1700000000 +0000\ndata 6\nchange\n"
        );
        if !self.index.git(&["for-each-ref", &branch]).is_empty() {
            writeln!(script, "from {branch}^0").unwrap();
        }
        let mut script = script.into_bytes();
        script.extend(self.changes);
        script.extend(b"\ndone\n");
        let path = self.index.path();
        let arguments = [
            "--git-dir",
            path.to_str().unwrap(),
            "fast-import",
            "--quiet",
        ];
        self.index.run(&arguments, &script);
        self.index.head()
    }

    fn entry(self, mode: &str, path: &str, content: &[u8]) -> Self {
        let length = content.len();
        self.change(format!("M {mode} inline {path}\ndata {length}\n").as_bytes())
            .change(content)
            .change(b"\n")
    }

    fn change(mut self, command: &[u8]) -> Self {
        self.changes.extend(command);
        self
    }
}

/// The path of the index file of a crate, as cargo computes it.
pub(crate) fn index_path(name: &str) -> String {
    let name = name.to_lowercase();
    let characters: Vec<char> = name.chars().collect();
    let part = |range: std::ops::Range<usize>| characters[range].iter().collect::<String>();
    match characters.len() {
        1 => format!("1/{name}"),
        2 => format!("2/{name}"),
        3 => format!("3/{}/{name}", part(0..1)),
        _ => format!("{}/{}/{name}", part(0..2), part(2..4)),
    }
}

/// The index line of a version without dependencies.
pub(crate) fn index_line(name: &str, version: &str, yanked: bool) -> Vec<u8> {
    let line = serde_json::json!({
        "name": name,
        "vers": version,
        "deps": [],
        "cksum": "0".repeat(64),
        "features": {},
        "yanked": yanked,
    });
    format!("{line}\n").into_bytes()
}
