//! `INDEX_PRUNED`: every surface lists the stored versions, and follows changes of the store.

use std::collections::BTreeSet;
use std::fs;

use tempfile::TempDir;

use super::{done, offline, serves};
use crate::git_served::GitClone;
use crate::support::{CrateFile, Mirror, Origin, eventually, index_path, stored_path};

/// The crates that one surface lists.
type Listed<'o> = BTreeSet<&'o str>;

/// The crates that the sparse index, the API and the git index list.
fn listed<'o>(mirror: &Mirror, origin: &'o Origin) -> [Listed<'o>; 3] {
    let url = format!("http://{}/git/index", mirror.address);
    let files = GitClone::of(&url, &["--bare"]).git(&["ls-tree", "-r", "--name-only", "HEAD"]);
    let names = || origin.files.iter().map(|file| file.name);
    let sparse = |name: &&str| mirror.get(&format!("/index/{}", index_path(name))).status == 200;
    let by_git = |name: &&str| files.lines().any(|path| path == index_path(name));
    [
        names().filter(sparse).collect(),
        names()
            .filter(|name| mirror.metadata(name).status == 200)
            .collect(),
        names().filter(by_git).collect(),
    ]
}

/// Waits until all surfaces list these files and no others.
#[track_caller]
fn wait_until_listed(mirror: &Mirror, origin: &Origin, files: &[&CrateFile]) {
    let expected: Listed<'_> = files.iter().map(|file| file.name).collect();
    let commit = origin.index.head();
    eventually("every surface lists the stored files", || {
        // In between, `x-index-commit` must name the same upstream commit.
        assert_eq!(mirror.commit().as_ref(), Some(&commit));
        listed(mirror, origin).iter().all(|view| *view == expected)
    });
    mirror.wait_for_git_commit(&commit);
    assert!(files.iter().all(|file| serves(mirror, file)));
}

#[test]
fn versions_appear_and_disappear_with_their_stored_files() {
    let (origin, data) = (Origin::of(3), TempDir::new().unwrap());
    let [first, second, third] = &origin.files[..] else {
        panic!("there are three");
    };
    let settings = origin.settings();
    done(&["prefetch", first.name], data.path(), &settings);
    let pruned = [("INDEX_PRUNED", "true")];
    let mirror = offline(&origin, data.path(), &pruned);
    wait_until_listed(&mirror, &origin, &[first]);
    done(
        &["prefetch", second.name, third.name],
        data.path(),
        &settings,
    );
    wait_until_listed(&mirror, &origin, &[first, second, third]);
    let asked = origin.fetched();
    fs::remove_file(stored_path(&data.path().join("crates"), &second.checksum())).unwrap();
    wait_until_listed(&mirror, &origin, &[first, third]);
    assert!(!serves(&mirror, second));
    assert_eq!(origin.fetched(), asked, "the upstream got a request");
}
