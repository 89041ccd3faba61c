//! Index files that are too large to be read: found when they are published, so that whoever runs the mirror learns of them
//! before a client does.

use super::changes::for_each_change;
use crate::index::limits::{INDEX_FILE_BYTES_MAX, ReadError};
use crate::index::source::directory::Directory;
use crate::index::source::libgit2::read_header;
use crate::index::source::repository::Repository;
use crate::index::stop::StopFlag;

/// So many are named. An upstream can make any number of them.
const NAMED_MAX: usize = 20;

/// The files that are too large, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct LargeFiles {
    files: Vec<LargeFile>,
}

#[derive(Debug)]
struct LargeFile {
    /// The crate's name in lower case.
    name: String,
    bytes: usize,
}

impl LargeFiles {
    /// Looks at the size of every index file that is not in `previous`. Blocking; unpacks nothing.
    pub(crate) fn follow(
        &mut self,
        (repository, shown): (&Repository, &Directory),
        previous: Option<&Directory>,
        stop: &StopFlag,
    ) -> Result<(), ReadError> {
        let files = &mut self.files;
        repository.with(|git| {
            let odb = git.odb()?;
            for_each_change(previous, Some(shown), &mut |change| {
                // The header of a difference is found through all those that it builds on, so a directory can take minutes.
                stop.check()?;
                files.retain(|file| file.name != change.name);
                let Some(blob) = change.after else {
                    return Ok(());
                };
                // One that is missing is found out about by whoever reads it.
                let bytes = read_header(&odb, blob.to_oid()?).map_or(0, |(bytes, _)| bytes);
                if bytes > INDEX_FILE_BYTES_MAX && files.len() <= NAMED_MAX {
                    files.push(LargeFile {
                        name: change.name.to_owned(),
                        bytes,
                    });
                }
                Ok(())
            })
        })
    }

    /// One sentence for each, and one for all that are not named.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let named = self.files.iter().take(NAMED_MAX).map(|file| {
            format!(
                "the index file of {} has {} bytes, and the mirror reads {INDEX_FILE_BYTES_MAX} at most: requests for it get 503",
                file.name, file.bytes
            )
        });
        let more = self.files.len() > NAMED_MAX;
        let more = more.then(|| "more index files are too large".to_owned());
        named.chain(more).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::stop::assert_ends_at_every_check;
    use crate::index::testing::TestIndex;

    #[test]
    fn the_sizes_of_files_are_looked_at_one_by_one_until_a_stop() {
        let paths: Vec<String> = (0..200)
            .map(|number| format!("ab/cd/abcd{number}"))
            .collect();
        let files: Vec<(&str, &str)> = paths
            .iter()
            .map(|path| (path.as_str(), path.as_str()))
            .collect();
        let mut index = TestIndex::new(&files);
        index.refresh();
        let view = index.handle.view().unwrap();
        let shown = (&**view.source().repository(), &**view.root());
        assert_ends_at_every_check(paths.len(), |stop| {
            LargeFiles::default().follow(shown, None, stop)
        });
    }
}
