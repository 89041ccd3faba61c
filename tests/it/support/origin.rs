//! The origin of a mirror: an index, and an upstream with the crate files that the index lists.

use super::{CrateFile, CrateUpstream, GitIndex};

/// An index and crate files that match.
pub(crate) struct Origin {
    pub(crate) index: GitIndex,
    pub(crate) upstream: CrateUpstream,
    pub(crate) files: Vec<CrateFile>,
}

impl Origin {
    /// `count` small crates.
    pub(crate) fn of(count: usize) -> Self {
        Self::with((0..count).map(CrateFile::numbered).collect())
    }

    /// One version of each of these crates.
    pub(crate) fn with(files: Vec<CrateFile>) -> Self {
        let upstream = CrateUpstream::start(&files);
        Self::at(upstream, files)
    }

    /// These crates, served by a given upstream.
    pub(crate) fn at(upstream: CrateUpstream, files: Vec<CrateFile>) -> Self {
        let index = GitIndex::empty();
        // Every index has a `config.json`.
        let mut commit = index.commit().file("config.json", b"{}");
        for file in &files {
            commit = commit.crate_file(file.name, &file.index_line());
        }
        commit.send();
        Self {
            index,
            upstream,
            files,
        }
    }

    /// Publishes a file in place of all versions of its name, and returns the commit.
    pub(crate) fn publish(&mut self, file: CrateFile) -> String {
        self.upstream.hold(&file.path(), file.content.clone());
        let commit = self.list(&file);
        self.files.retain(|other| other.name != file.name);
        self.files.push(file);
        commit
    }

    /// Lists a file in the index in place of all versions of its name, and returns the commit.
    pub(crate) fn list(&self, file: &CrateFile) -> String {
        let commit = self.index.commit();
        commit.crate_file(file.name, &file.index_line()).send()
    }

    /// `GIT_REPO_URL`, `DOWNLOAD_URL` and `DOWNLOAD_MODE=cache`.
    pub(crate) fn settings(&self) -> [(&'static str, String); 3] {
        [
            (
                "GIT_REPO_URL",
                self.index.path().to_str().unwrap().to_owned(),
            ),
            ("DOWNLOAD_URL", self.upstream.template()),
            ("DOWNLOAD_MODE", "cache".to_owned()),
        ]
    }

    /// The paths that the upstream got requests for, sorted.
    pub(crate) fn fetched(&self) -> Vec<String> {
        let seen = self.upstream.seen().into_iter();
        let mut paths: Vec<String> = seen.map(|seen| seen.path).collect();
        paths.sort();
        paths
    }
}
