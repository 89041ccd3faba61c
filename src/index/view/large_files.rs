//! Finds index files that are too large to be read. It does so when a view is published, so the operator learns of them
//! before a client does.

use super::changes::for_each_change;
use crate::index::limits::{INDEX_FILE_BYTES_MAX, ReadError};
use crate::index::source::directory::Directory;
use crate::index::source::libgit2::read_header;
use crate::index::source::repository::Repository;
use crate::index::stop::StopFlag;

/// The number of files that are named. An upstream can have any number of them.
const NAMED_MAX: usize = 20;

/// The known files that are too large.
#[derive(Debug, Default)]
pub(crate) struct LargeFiles {
    /// The crate's name in lower case, and the size in bytes.
    files: Vec<(String, usize)>,
}

impl LargeFiles {
    /// Checks the size of every index file that is not in `previous`. Blocking. Unpacks nothing.
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
                // The header of a delta requires the headers of all its bases, so one directory can take minutes.
                stop.check()?;
                files.retain(|(name, _)| name != change.name);
                let Some(blob) = change.after else {
                    return Ok(());
                };
                // A missing blob is no concern here: the first read reports it.
                let bytes = read_header(&odb, blob.to_oid()?).map_or(0, |(bytes, _)| bytes);
                if bytes > INDEX_FILE_BYTES_MAX && files.len() <= NAMED_MAX {
                    files.push((change.name.to_owned(), bytes));
                }
                Ok(())
            })
        })
    }

    /// One warning for each named file, and one for all others.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let named = self.files.iter().take(NAMED_MAX).map(|(name, bytes)| {
            format!(
                "the index file of {name} has {bytes} bytes, and the mirror reads {INDEX_FILE_BYTES_MAX} at most: requests for it get 503"
            )
        });
        // `follow` keeps one file more than are named, so this knows whether there are more.
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
    fn a_stop_ends_the_size_check_at_the_next_file() {
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
