//! Whole exports, and what they build on.

use std::fs::File;
use std::path::Path;

use super::*;
use crate::archive::export::{ExportError, ExportJob, export};
use crate::archive::manifest::End;
use crate::archive::read::{Beginning, read_beginning};
use crate::index::ServedIndex;
use crate::store::testing::{checksum, put};

fn exported(
    archive: &Path,
    since: Option<&Path>,
    index: &TestIndex,
    store: &Arc<CrateStore>,
) -> Result<End, ExportError> {
    let _entered = runtime();
    let scratch = TempDir::new().unwrap();
    let job = ExportJob {
        archive: archive.to_owned(),
        since: since.map(Path::to_owned),
        index: ServedIndex::without_policy(current(&index.data_dir()).unwrap()),
        store: Arc::clone(store),
        scratch: scratch.path().to_owned(),
        clock: Clock::system(),
        stop: CancellationToken::new(),
    };
    Ok(export(&job, &mut |_event| {})?.end)
}

fn beginning(path: &Path) -> Beginning {
    read_beginning(File::open(path).unwrap()).unwrap()
}

#[test]
fn each_archive_has_what_is_new_and_lists_all() {
    let directory = tempfile::tempdir().unwrap();
    let [monday, tuesday, wednesday] =
        ["monday.tar", "tuesday.tar", "wednesday.tar"].map(|name| directory.path().join(name));
    let mut index = index_with(&[1]);
    let end = exported(&monday, None, &index, &store(&["a", "b"])).unwrap();
    assert_eq!(end.crate_files, 2);
    // `a` is no longer stored here, but the target has it.
    advance(&mut index, 2);
    let end = exported(&tuesday, Some(&monday), &index, &store(&["b", "c"])).unwrap();
    assert_eq!((end.crate_files, end.index_files), (1, 1));
    let after = beginning(&tuesday);
    assert_eq!((after.manifest.crate_files, after.files.count()), (1, 3));
    let base = after.manifest.base.unwrap();
    assert_eq!(
        (base.archive.as_str(), after.manifest.index_base),
        ("monday.tar", Some(base.index_commit))
    );
    advance(&mut index, 3);
    let store = store(&["a", "b", "c"]);
    let end = exported(&wednesday, Some(&tuesday), &index, &store).unwrap();
    assert_eq!(end.crate_files, 0);
}

#[test]
fn a_bad_earlier_archive_is_bad_usage_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (index, store) = (index_with(&[1]), store(&["a"]));
    let [good, junk, target] = ["good", "junk", "target"].map(|name| directory.path().join(name));
    exported(&good, None, &index, &store).unwrap();
    std::fs::write(&junk, "junk").unwrap();
    for (since, archive, words) in [
        (&junk, &target, "not an archive"),
        (&directory.path().join("absent"), &target, "cannot be read"),
        (&good, &good, "must be another file"),
    ] {
        let error = exported(archive, Some(since), &index, &store).unwrap_err();
        assert!(matches!(error, ExportError::Earlier { .. }));
        let said = error.to_string();
        assert!(
            said.starts_with("--since ") && said.contains(words),
            "{said}"
        );
    }
    assert!(!target.exists());
    assert_eq!(beginning(&good).manifest.crate_files, 1);
}

#[test]
fn a_damaged_or_removed_file_of_the_store_leaves_no_archive() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    let (index, store) = (index_with(&[1]), store(&["a"]));
    RUNTIME.block_on(put(&store, &checksum("b"), "not b"));
    let said = exported(&target, None, &index, &store)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("is damaged") && said.contains("verify --repair"),
        "{said}"
    );
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    let gone = ChecksumList::from(vec![checksum("gone")]);
    let error = written(&[1], &self::store(&[]), gone.clone(), gone, None).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("cannot be read: it was removed"), "{said}");
}
