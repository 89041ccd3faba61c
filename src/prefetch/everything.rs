//! `prefetch --all`: every version of every crate, one crate in memory at a time.

use std::ops::ControlFlow;

use super::findings::Finding;
use super::index_reader::{IndexReader, IndexUnreadable};
use super::plan::files_of_crate;
use crate::package::CrateFile;

/// Someone who wants every file.
pub(crate) trait EveryFile {
    /// Takes the next file.
    fn take(&mut self, file: CrateFile) -> ControlFlow<()>;

    /// Hears of a version that cannot be had.
    fn hear(&mut self, finding: Finding);
}

/// Hands over every file that the index lists, until there are no more or the taker breaks off. Blocking.
pub(crate) fn hand_over_everything(
    index: &impl IndexReader,
    taker: &mut (impl EveryFile + Send),
) -> Result<(), IndexUnreadable> {
    index.visit_index_files(&mut |name, file| {
        let (files, findings) = files_of_crate(name, file);
        for finding in findings {
            taker.hear(finding);
        }
        files.into_iter().try_for_each(|file| taker.take(file))
    })
}
