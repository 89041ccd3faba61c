//! Real git indexes of synthetic crates and of real ones.

use std::collections::BTreeMap;
use std::path::Path;

use crate::index::testing::{TestIndex, damage_clone};
use crate::index::{IndexHandle, ServedIndex, open_current};
use crate::package::{CrateName, IndexPath};
use crate::store::testing::checksum;

/// Index files by the crate's name in lower case.
#[derive(Default)]
pub(crate) struct IndexFiles(pub(crate) BTreeMap<String, String>);

/// A clone of an index.
pub(crate) struct ClonedIndex {
    /// What it shows.
    pub(crate) snapshot: ServedIndex,
    /// Removes the clone when it is dropped.
    _index: TestIndex,
}

impl IndexFiles {
    /// Adds a version with these dependencies, each a JSON object.
    pub(crate) fn publish(mut self, name: &str, version: &str, dependencies: &[&str]) -> Self {
        let line = format!(
            r#"{{"name":"{name}","vers":"{version}","deps":[{}],"cksum":"{}","features":{{}},"yanked":false}}"#,
            dependencies.join(","),
            checksum_of(name, version),
        );
        let file = self.0.entry(name.to_lowercase()).or_default();
        *file += &(line + "\n");
        self
    }

    /// Marks a version as yanked.
    pub(crate) fn yank(mut self, name: &str, version: &str) -> Self {
        let file = self.0.get_mut(name).unwrap();
        let of_version = format!(r#""vers":"{version}""#);
        let lines = file.lines().map(|line| {
            let no = r#""yanked":false"#;
            let is_it = line.contains(&of_version);
            let after = if is_it { r#""yanked":true"# } else { no };
            line.replace(no, after) + "\n"
        });
        *file = lines.collect();
        self
    }

    /// Adds the files of real crates from the test fixtures.
    pub(crate) fn with_real_crates(mut self, names: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/index");
        for name in names {
            let file = std::fs::read_to_string(root.join(path_of(name))).unwrap();
            self.0.insert((*name).to_owned(), file);
        }
        self
    }

    /// A clone of an index of these files.
    pub(crate) fn cloned(&self) -> ClonedIndex {
        let paths: Vec<String> = self.0.keys().map(|name| path_of(name)).collect();
        let contents = self.0.values().map(String::as_str);
        let files: Vec<(&str, &str)> = paths.iter().map(String::as_str).zip(contents).collect();
        let mut index = TestIndex::new(&files);
        index.refresh();
        // libgit2 shares open packs between all readers: this clone must be the only one, or it would survive damage.
        index.stop();
        index.handle = IndexHandle::new();
        ClonedIndex {
            snapshot: ServedIndex::without_policy(
                open_current(&index.data_dir()).unwrap().unwrap(),
            ),
            _index: index,
        }
    }
}

/// A clone that is damaged after it was opened.
pub(crate) fn damaged(files: &IndexFiles) -> ClonedIndex {
    let index = files.cloned();
    let repository = index.snapshot.source.repository();
    damage_clone(repository.path());
    repository.close_idle_handles();
    index
}

fn path_of(name: &str) -> String {
    let path = IndexPath::from(&CrateName::try_from(name.to_owned()).unwrap());
    format!("{}/{}", path.prefix(), path.file())
}

/// The bytes of a version's file.
pub(crate) fn content_of(name: &str, version: &str) -> String {
    format!("{name} {version}")
}

/// The checksum that [`IndexFiles::publish`] gives to a version.
pub(crate) fn checksum_of(name: &str, version: &str) -> String {
    checksum(&content_of(name, version)).to_string()
}

/// A dependency as JSON, with these additional fields.
pub(crate) fn dependency(name: &str, req: &str, rest: &str) -> String {
    format!(r#"{{"name":"{name}","req":"{req}","features":[],"default_features":true{rest}}}"#)
}
