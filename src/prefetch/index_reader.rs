//! The index, as far as planning needs it: a small trait, so that tests can use a map.

use std::error::Error;
use std::ops::ControlFlow;

use crate::package::CrateName;

/// Reads index files of one state of the index. Blocking.
pub(crate) trait IndexReader {
    /// The content of a crate's index file, whichever spelling its name is given in; `None` if there is no such crate.
    fn index_file(&self, name: &CrateName) -> Result<Option<Vec<u8>>, IndexUnreadable>;

    /// Shows every index file, one at a time, until there are no more or `visit` breaks off.
    fn visit_index_files(
        &self,
        visit: &mut (dyn FnMut(&CrateName, &[u8]) -> ControlFlow<()> + Send),
    ) -> Result<(), IndexUnreadable>;
}

/// The index could not be read, so nothing can be said of what is in it.
#[derive(Debug, thiserror::Error)]
#[error("the index cannot be read: {0}")]
pub(crate) struct IndexUnreadable(#[source] pub(crate) Box<dyn Error + Send + Sync>);

/// An index in memory.
#[cfg(test)]
pub(crate) mod testing {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::{ControlFlow, CrateName, IndexReader, IndexUnreadable};
    use crate::package::IndexPath;

    /// Index files by the crate's name in lower case.
    #[derive(Default)]
    pub(crate) struct MapIndex(pub(crate) BTreeMap<String, String>);

    impl MapIndex {
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

        /// Adds the files of real crates that the tests have.
        pub(crate) fn with_real_crates(mut self, names: &[&str]) -> Self {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/index");
            for name in names {
                let path = IndexPath::from(&CrateName::try_from((*name).to_owned()).unwrap());
                let path = root.join(path.prefix()).join(path.file());
                let file = std::fs::read_to_string(path).unwrap();
                self.0.insert((*name).to_owned(), file);
            }
            self
        }
    }

    /// The checksum that [`MapIndex::publish`] gives to a version.
    pub(crate) fn checksum_of(name: &str, version: &str) -> String {
        let text = format!("{name} {version}");
        let mut hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        hex.truncate(64);
        format!("{hex:0<64}")
    }

    /// A dependency as JSON, of this kind.
    pub(crate) fn dependency(name: &str, req: &str, rest: &str) -> String {
        format!(r#"{{"name":"{name}","req":"{req}","features":[],"default_features":true{rest}}}"#)
    }

    impl IndexReader for MapIndex {
        fn index_file(&self, name: &CrateName) -> Result<Option<Vec<u8>>, IndexUnreadable> {
            let broken = name.as_str() == "broken";
            if broken {
                return Err(IndexUnreadable("a bad block".into()));
            }
            let file = self.0.get(&name.to_lowercase());
            Ok(file.map(|file| file.clone().into_bytes()))
        }

        fn visit_index_files(
            &self,
            visit: &mut (dyn FnMut(&CrateName, &[u8]) -> ControlFlow<()> + Send),
        ) -> Result<(), IndexUnreadable> {
            for (name, file) in &self.0 {
                let name = CrateName::try_from(name.clone()).unwrap();
                if visit(&name, file.as_bytes()).is_break() {
                    break;
                }
            }
            Ok(())
        }
    }
}
