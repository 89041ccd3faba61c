//! The lines of the feed: one change each, as a JSON object.

use serde::Serialize;

use crate::index::ShownFlag;
use crate::package::Timestamp;

/// The longest version that the feed names, in bytes. crates.io allows far less. A longer one can be in a hostile index: it
/// is no version here, so that no line has more than about a kilobyte.
pub(crate) const VERSION_BYTES_MAX: usize = 256;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChangeKind {
    /// There is a new version.
    Added,
    /// A version is yanked now.
    Yanked,
    /// A version is no longer yanked.
    Unyanked,
    /// A version is gone.
    VersionDeleted,
    /// The index file of a crate is gone. One line for each of its versions comes before this one.
    CrateDeleted,
    /// Something else in the line of a version has changed. Without a version: something else in the index file.
    Changed,
}

/// One line. It ends without a line break.
#[derive(Debug, Serialize)]
pub(crate) struct ChangeLine<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: ChangeKind,
    /// The published name.
    #[serde(rename = "crate")]
    pub(crate) crate_name: &'a str,
    /// The version after the change; before it, for one that is gone. `None` if the line is about no version.
    #[serde(flatten)]
    pub(crate) version: Option<VersionState<'a>>,
    /// The path of the index file, below the root of the index.
    pub(crate) path: &'a str,
    /// The upstream commit in which the mirror saw the change.
    pub(crate) commit: &'a str,
}

/// The state of a version in a line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct VersionState<'a> {
    pub(crate) version: &'a str,
    /// As the index line has it; `None` if that is no checksum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cksum: Option<&'a str>,
    /// `None` if the index line has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pubtime: Option<&'a Timestamp>,
    /// As it is shown.
    pub(crate) yanked: bool,
    /// Why the mirror shows it as yanked, if the upstream does not.
    #[serde(flatten)]
    pub(crate) flag: Option<ShownFlag>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_fields_of_the_specification_in_its_order() {
        let pubtime = Timestamp::from_unix_seconds(1_764_201_600).unwrap();
        let line = |version: Option<VersionState<'_>>| {
            let line = ChangeLine {
                kind: ChangeKind::VersionDeleted,
                crate_name: "Serde",
                version,
                path: "se/rd/serde",
                commit: "c0ffee",
            };
            serde_json::to_string(&line).unwrap()
        };
        let version = VersionState {
            version: "1.0.0",
            cksum: Some("ab"),
            pubtime: Some(&pubtime),
            yanked: true,
            flag: None,
        };
        let begin = r#"{"type":"version_deleted","crate":"Serde","#;
        let state =
            r#""version":"1.0.0","cksum":"ab","pubtime":"2025-11-27T00:00:00Z","yanked":true,"#;
        let end = r#""path":"se/rd/serde","commit":"c0ffee"}"#;
        assert_eq!(line(None), format!("{begin}{end}"));
        assert_eq!(line(Some(version.clone())), format!("{begin}{state}{end}"));
        for (flag, text) in [
            (
                ShownFlag::HeldUntil(Some(pubtime.clone())),
                r#""held_until":"2025-11-27T00:00:00Z","#,
            ),
            (ShownFlag::HeldUntil(None), r#""held_until":null,"#),
            (ShownFlag::Denied(true), r#""denied":true,"#),
        ] {
            let flagged = VersionState {
                flag: Some(flag),
                ..version.clone()
            };
            assert_eq!(line(Some(flagged)), format!("{begin}{state}{text}{end}"));
        }
    }
}
