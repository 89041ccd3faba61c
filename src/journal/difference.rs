//! What has changed in the index file of one crate.

use std::collections::HashMap;

use super::line::{ChangeKind, VERSION_BYTES_MAX};
use crate::package::{CrateName, IndexLine, Timestamp, canonical_order, with_yanked};

/// The index file of a crate in one state of the index.
#[derive(Clone, Copy, Debug)]
pub(super) enum FileState<'a> {
    /// There is none.
    Absent,
    /// It is too large to be read. Clients cannot read it either.
    TooLarge,
    /// Its content.
    Content(&'a [u8]),
}

/// A version, as its index line has it.
#[derive(Debug)]
pub(super) struct Version<'a> {
    /// The crate's name as published.
    pub(super) crate_name: CrateName,
    pub(super) version: String,
    /// As it is written; `None` if it is no checksum.
    pub(super) cksum: Option<String>,
    pub(super) pubtime: Option<Timestamp>,
    pub(super) yanked: bool,
    line: &'a [u8],
}

/// The readable versions of an index file, in its order. Of several lines of one version the first counts, as for look-ups.
#[derive(Debug, Default)]
struct Versions<'a> {
    list: Vec<Version<'a>>,
    places: HashMap<String, usize>,
}

impl<'a> Versions<'a> {
    fn read(state: FileState<'a>, name: &CrateName) -> Self {
        let FileState::Content(content) = state else {
            return Self::default();
        };
        let mut versions = Self::default();
        for line in content.split(|byte| *byte == b'\n') {
            // The rest of the parsed line, such as its dependencies, is dropped at once: the largest files have megabytes.
            let Some(parsed) = IndexLine::parse(line) else {
                continue;
            };
            let is_ours = canonical_order(parsed.name.as_str(), name.as_str()).is_eq();
            let text = parsed.version.as_str();
            if !is_ours || text.len() > VERSION_BYTES_MAX || versions.places.contains_key(text) {
                continue;
            }
            let version = Version {
                cksum: parsed.checksum().map(|_real| parsed.cksum),
                version: text.to_owned(),
                crate_name: parsed.name,
                pubtime: parsed.pubtime,
                yanked: parsed.yanked,
                line,
            };
            let place = versions.list.len();
            versions.places.insert(version.version.clone(), place);
            versions.list.push(version);
        }
        versions
    }

    fn find(&self, version: &str) -> Option<&Version<'a>> {
        self.list.get(*self.places.get(version)?)
    }
}

/// Calls `visit` with everything that differs between two states of a crate's index file, which differ: the kind, the
/// published name of the crate, and the version if there is one. It is called at least once. Ends with the first error.
///
/// # Errors
/// Those of `visit`.
pub(super) fn for_each_difference<E>(
    name: &CrateName,
    (before, after): (FileState<'_>, FileState<'_>),
    mut visit: impl FnMut(ChangeKind, &str, Option<&Version<'_>>) -> Result<(), E>,
) -> Result<(), E> {
    let (old, new) = (Versions::read(before, name), Versions::read(after, name));
    let published = new.list.first().or_else(|| old.list.first());
    let published = published.map_or(name.as_str(), |version| version.crate_name.as_str());
    if matches!(after, FileState::TooLarge) {
        return visit(ChangeKind::Changed, published, None);
    }
    let mut is_told = false;
    let gone = old.list.iter();
    for version in gone.filter(|version| new.find(&version.version).is_none()) {
        is_told = true;
        visit(ChangeKind::VersionDeleted, published, Some(version))?;
    }
    if matches!(after, FileState::Absent) {
        return visit(ChangeKind::CrateDeleted, published, None);
    }
    for version in &new.list {
        let kinds = match old.find(&version.version) {
            None => [Some(ChangeKind::Added), None],
            Some(earlier) => edits(earlier, version),
        };
        for kind in kinds.into_iter().flatten() {
            is_told = true;
            visit(kind, published, Some(version))?;
        }
    }
    if is_told {
        return Ok(());
    }
    // Perhaps the order of the lines, or one that look-ups skip. Somebody who copies files must hear of it.
    visit(ChangeKind::Changed, published, None)
}

/// What differs between two lines of one version.
fn edits(before: &Version<'_>, after: &Version<'_>) -> [Option<ChangeKind>; 2] {
    if before.line == after.line {
        return [None, None];
    }
    let is_flipped = before.yanked != after.yanked;
    let differs_by_flag = || {
        // In both directions, because the flag may be missing on one side.
        with_yanked(before.line, after.yanked).as_deref() == Some(after.line)
            || with_yanked(after.line, before.yanked).as_deref() == Some(before.line)
    };
    let is_changed = !(is_flipped && differs_by_flag());
    let flag = if after.yanked {
        ChangeKind::Yanked
    } else {
        ChangeKind::Unyanked
    };
    [
        is_changed.then_some(ChangeKind::Changed),
        is_flipped.then_some(flag),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(version: &str, yanked: bool) -> String {
        format!(
            r#"{{"name":"Foo","vers":"{version}","deps":[],"cksum":"{}","features":{{}},"yanked":{yanked}}}{}"#,
            "0".repeat(64),
            "\n"
        )
    }

    /// The differences as `kind version`.
    fn differences(before: FileState<'_>, after: FileState<'_>) -> Vec<String> {
        let mut found = Vec::new();
        let name = CrateName::try_from("foo".to_owned()).unwrap();
        let Ok(()) = for_each_difference(&name, (before, after), |kind, crate_name, version| {
            assert!(["Foo", "foo"].contains(&crate_name));
            let kind = serde_json::to_string(&kind).unwrap();
            let version = version.map_or("-", |version| &version.version);
            found.push(format!("{} {version}", kind.trim_matches('"')));
            Ok::<(), std::convert::Infallible>(())
        });
        found
    }

    fn between(before: &str, after: &str) -> Vec<String> {
        let content = |text: &str| -> Vec<u8> { text.as_bytes().to_vec() };
        let (before, after) = (content(before), content(after));
        differences(FileState::Content(&before), FileState::Content(&after))
    }

    #[test]
    fn each_kind_of_change_is_told_by_its_name() {
        let (one, two) = (line("1.0.0", false), line("2.0.0", false));
        let yanked = line("1.0.0", true);
        let both = format!("{one}{two}");
        let edited = one.replace("\"deps\":[]", "\"deps\":[{\"name\":\"a\",\"req\":\"*\"}]");
        let other_bytes = one.replace(&"0".repeat(64), &"1".repeat(64));
        let without_flag = one.replace(",\"yanked\":false", "");
        let spaced = one.replace("\"yanked\":false", "\"yanked\" : false");
        let spaced_yanked = one.replace("\"yanked\":false", "\"yanked\" : true");
        for (before, after, expected) in [
            (one.as_str(), both.as_str(), ["added 2.0.0"].as_slice()),
            (&one, &yanked, &["yanked 1.0.0"]),
            (&yanked, &one, &["unyanked 1.0.0"]),
            (
                &without_flag,
                &without_flag.replace("{}}", "{},\"yanked\":true}"),
                &["yanked 1.0.0"],
            ),
            (
                &without_flag.replace("{}}", "{},\"yanked\":true}"),
                &without_flag,
                &["unyanked 1.0.0"],
            ),
            (&spaced, &spaced_yanked, &["yanked 1.0.0"]),
            (&both, &one, &["version_deleted 2.0.0"]),
            (&both, &two, &["version_deleted 1.0.0"]),
            (&one, &edited, &["changed 1.0.0"]),
            (&one, &other_bytes, &["changed 1.0.0"]),
            (
                &one,
                &edited.replace("false", "true"),
                &["changed 1.0.0", "yanked 1.0.0"],
            ),
            (&one, &without_flag, &["changed 1.0.0"]),
            (&one, &two, &["version_deleted 1.0.0", "added 2.0.0"]),
            (&both, &format!("{two}{one}"), &["changed -"]),
            (&one, &format!("{one}junk\n"), &["changed -"]),
            (&one, &format!("{one}{one}"), &["changed -"]),
            (&one, &format!("{one}{yanked}"), &["changed -"]),
            (&format!("{one}{yanked}"), &yanked, &["yanked 1.0.0"]),
            (&one, "", &["version_deleted 1.0.0"]),
            ("", "junk\n", &["changed -"]),
            ("junk\n", &one, &["added 1.0.0"]),
            (&one, &one.replace("Foo", "Bar"), &["version_deleted 1.0.0"]),
        ] {
            assert_eq!(between(before, after), expected, "{before} {after}");
        }
        let long = line(&format!("1.0.0-{}", "a".repeat(VERSION_BYTES_MAX)), false);
        assert_eq!(between("", &long), ["changed -"]);
    }

    #[test]
    fn a_file_may_come_and_go_and_be_too_large() {
        let (one, both) = (
            line("1.0.0", false),
            format!("{}{}", line("1.0.0", false), line("2.0.0", true)),
        );
        let content = |text: &'static str| FileState::Content(text.as_bytes());
        let (one, both) = (content(one.leak()), content(both.leak()));
        let (absent, large) = (FileState::Absent, FileState::TooLarge);
        for (before, after, expected) in [
            (absent, both, ["added 1.0.0", "added 2.0.0"].as_slice()),
            (
                both,
                absent,
                &[
                    "version_deleted 1.0.0",
                    "version_deleted 2.0.0",
                    "crate_deleted -",
                ],
            ),
            (absent, content("junk\n"), &["changed -"]),
            (content("junk\n"), absent, &["crate_deleted -"]),
            (one, large, &["changed -"]),
            (absent, large, &["changed -"]),
            (large, one, &["added 1.0.0"]),
            (large, absent, &["crate_deleted -"]),
        ] {
            assert_eq!(differences(before, after), expected, "{before:?} {after:?}");
        }
    }
}
