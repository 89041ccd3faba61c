//! One crate in the index: its versions in publish order, and facts that follow from them.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::{CrateName, CrateVersion, IndexLine, Timestamp, canonical_order};

/// Seconds from 1970 to the first publish on crates.io, 2014-11. Ids count from here, so that they fit an `i32`.
const FIRST_PUBLISH_UNIX_SECONDS: i64 = 1_414_800_000;

/// Ids below this one belong to crates without any publish time.
const FIRST_TIMED_ID: i64 = 1 << 24;

/// The highest id made from a time. The ids above it are for versions after one with a time in the far future.
const LAST_TIMED_ID: i64 = i32::MAX as i64 - (1 << 24);

/// A crate, read from its index file. Invariant: there is at least one release.
#[derive(Clone, Debug)]
pub(crate) struct CrateHistory<'a> {
    releases: Vec<Release<'a>>,
}

/// One version of a crate, with facts that depend on the other lines of the file.
#[derive(Clone, Debug)]
pub(crate) struct Release<'a> {
    /// An opaque number for clients that join answers. It is the same on every replica, and rises in publish order within
    /// the crate. It is made from the publish time, so two crates seldom share one.
    pub(crate) id: i32,
    /// The number of dependencies on the earlier lines of the file. Together with its place on its own line it numbers a
    /// dependency within the crate.
    pub(crate) dependencies_before: usize,
    /// The time of its publish. If the line has none, the earliest known time of the crate; if there is none, 1970.
    pub(crate) published_at: Timestamp,
    /// The line itself.
    pub(crate) line: IndexLine<'a>,
}

impl Release<'_> {
    /// The version of this release.
    pub(crate) fn version(&self) -> &CrateVersion {
        &self.line.version
    }

    /// By semver precedence, which ignores build metadata, then by id.
    pub(crate) fn precedence_order(&self, other: &Self) -> Ordering {
        self.version()
            .semver()
            .cmp_precedence(other.version().semver())
            .then(self.id.cmp(&other.id))
    }
}

impl<'a> CrateHistory<'a> {
    /// Reads an index file. Lines that are junk, belong to another crate or repeat a version are skipped. `None` if no line
    /// is left: then cargo, too, says that there is no such crate.
    pub(crate) fn parse(file: &'a [u8], name: &CrateName) -> Option<Self> {
        let mut lines: Vec<IndexLine<'a>> = lines_of(file, name).collect();
        let mut seen = HashSet::new();
        lines.retain(|line| seen.insert(line.version.as_str().to_owned()));
        let earliest = lines.iter().filter_map(|line| line.pubtime.clone()).min();
        let unknown = earliest.unwrap_or_else(Timestamp::epoch);

        let (mut previous_id, mut dependencies_before) = (0, 0);
        let releases: Vec<Release<'a>> = lines
            .into_iter()
            .map(|line| {
                let published_at = line.pubtime.clone().unwrap_or_else(|| unknown.clone());
                let id = id_at(&published_at, line.name.as_str()).max(previous_id + 1);
                let release = Release {
                    id: i32::try_from(id).unwrap_or(i32::MAX),
                    dependencies_before,
                    published_at,
                    line,
                };
                previous_id = id;
                dependencies_before += release.line.dependencies.len();
                release
            })
            .collect();
        (!releases.is_empty()).then_some(Self { releases })
    }

    /// The crate's name as published. Reads no more lines than necessary.
    pub(crate) fn published_name(file: &[u8], name: &CrateName) -> Option<String> {
        lines_of(file, name)
            .next()
            .map(|line| line.name.to_string())
    }

    /// The releases in publish order, which is the order of their ids.
    pub(crate) fn releases(&self) -> &[Release<'a>] {
        &self.releases
    }

    /// The crate's name as published.
    pub(crate) fn name(&self) -> &str {
        self.releases
            .first()
            .map_or("", |release| release.line.name.as_str())
    }

    /// The release with exactly this version text.
    pub(crate) fn find(&self, version: &CrateVersion) -> Option<&Release<'a>> {
        self.releases
            .iter()
            .find(|release| release.version() == version)
    }

    /// The version that crates.io shows by default: one that is not yanked before one that is, a release before a
    /// pre-release, then by precedence.
    pub(crate) fn default_release(&self) -> Option<&Release<'a>> {
        let rank =
            |release: &Release<'_>| (!release.line.yanked, !release.version().is_prerelease());
        self.releases.iter().max_by(|left, right| {
            rank(left)
                .cmp(&rank(right))
                .then_with(|| left.precedence_order(right))
        })
    }

    /// The highest version that is not yanked, pre-releases included, in the total order of the `semver` crate.
    pub(crate) fn max_version(&self) -> Option<&CrateVersion> {
        self.visible()
            .map(Release::version)
            .max_by_key(|version| version.semver())
    }

    /// The highest version that is neither yanked nor a pre-release.
    pub(crate) fn max_stable_version(&self) -> Option<&CrateVersion> {
        self.visible()
            .map(Release::version)
            .filter(|version| !version.is_prerelease())
            .max_by_key(|version| version.semver())
    }

    /// The version that was published last among those not yanked.
    pub(crate) fn newest_version(&self) -> Option<&CrateVersion> {
        self.visible()
            .max_by_key(|release| (&release.published_at, release.version().semver()))
            .map(Release::version)
    }

    /// The time of the first publish.
    pub(crate) fn created_at(&self) -> Timestamp {
        let times = self.releases.iter().map(|release| &release.published_at);
        times.min().cloned().unwrap_or_else(Timestamp::epoch)
    }

    /// The time of the last publish.
    pub(crate) fn updated_at(&self) -> Timestamp {
        let times = self.releases.iter().map(|release| &release.published_at);
        times.max().cloned().unwrap_or_else(Timestamp::epoch)
    }

    /// Releases that are not yanked.
    pub(crate) fn visible(&self) -> impl Iterator<Item = &Release<'a>> {
        self.releases.iter().filter(|release| !release.line.yanked)
    }
}

/// The readable lines of an index file that belong to the crate.
fn lines_of<'a>(file: &'a [u8], name: &CrateName) -> impl Iterator<Item = IndexLine<'a>> {
    file.split(|byte| *byte == b'\n')
        .filter_map(IndexLine::parse)
        .filter(|line| canonical_order(line.name.as_str(), name.as_str()).is_eq())
}

/// The id of a publish of this crate at this time: half seconds since the first publish on crates.io. The name decides
/// between the two halves, so that publishes in the same second differ. It reaches the end of an `i32` in 2048.
fn id_at(time: &Timestamp, name: &str) -> i64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
    });
    let seconds = time.unix_seconds() - FIRST_PUBLISH_UNIX_SECONDS;
    if seconds < 0 {
        // Spread by name: all that is known of such crates.
        return 1 + i64::from(u32::try_from(hash >> 41).unwrap_or(0));
    }
    (FIRST_TIMED_ID + seconds * 2 + i64::from(hash & 1 == 1)).min(LAST_TIMED_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> CrateName {
        CrateName::try_from(text.to_owned()).unwrap()
    }

    fn history(rows: &[(&str, bool, Option<&str>)]) -> CrateHistory<'static> {
        let file: String = rows
            .iter()
            .map(|(version, yanked, time)| {
                let time = time.map_or(String::new(), |time| format!(r#","pubtime":"{time}""#));
                format!(r#"{{"name":"Foo-bar","vers":"{version}","deps":[],"cksum":"","yanked":{yanked}{time}}}{}"#, "\n")
            })
            .collect();
        CrateHistory::parse(file.leak().as_bytes(), &name("foo_bar")).unwrap()
    }

    fn text(version: Option<&CrateVersion>) -> &str {
        version.map_or("none", CrateVersion::as_str)
    }

    #[test]
    fn summary_versions_follow_their_rules() {
        let all = history(&[
            ("1.0.0", false, Some("2020-01-01T00:00:00Z")),
            ("2.0.0-rc.1", false, Some("2020-02-01T00:00:00Z")),
            ("1.5.0", true, Some("2020-03-01T00:00:00Z")),
            ("0.9.1", false, Some("2020-04-01T00:00:00Z")),
        ]);
        assert_eq!(all.name(), "Foo-bar");
        assert_eq!(text(all.default_release().map(Release::version)), "1.0.0");
        assert_eq!(text(all.max_version()), "2.0.0-rc.1");
        assert_eq!(text(all.max_stable_version()), "1.0.0");
        assert_eq!(text(all.newest_version()), "0.9.1");

        let yanked = history(&[("1.0.0", true, None), ("1.1.0", true, None)]);
        assert_eq!(
            text(yanked.default_release().map(Release::version)),
            "1.1.0"
        );
        assert_eq!(text(yanked.max_version()), "none");

        let prerelease = history(&[("0.1.0-a", false, None), ("0.1.0-b", false, None)]);
        assert_eq!(
            text(prerelease.default_release().map(Release::version)),
            "0.1.0-b"
        );
        assert_eq!(text(prerelease.max_stable_version()), "none");
    }

    #[test]
    fn build_metadata_counts_for_the_maximum_but_not_for_the_default() {
        let built = history(&[("1.0.0+b", false, None), ("1.0.0+a", false, None)]);
        assert_eq!(text(built.max_version()), "1.0.0+b");
        assert_eq!(
            text(built.default_release().map(Release::version)),
            "1.0.0+a",
            "the higher id"
        );
    }

    #[test]
    fn ids_rise_in_publish_order_whatever_the_times_say() {
        let mixed = history(&[
            ("1.0.0", false, Some("2020-01-01T00:00:00Z")),
            ("1.0.1", false, None),
            ("1.0.2", false, Some("2020-01-01T00:00:00Z")),
            ("1.0.3", false, Some("2099-01-01T00:00:00Z")),
            ("1.0.4", false, Some("2019-01-01T00:00:00Z")),
        ]);
        let ids: Vec<i32> = mixed.releases().iter().map(|release| release.id).collect();
        assert!(ids.is_sorted_by(|left, right| left < right), "{ids:?}");
        assert_eq!(mixed.created_at().unix_seconds(), 1_546_300_800);
        let untimed = history(&[("1.0.0", false, None)]);
        assert_eq!(untimed.created_at(), Timestamp::epoch());
        assert!((1..1 << 24).contains(&untimed.releases()[0].id));
    }

    #[test]
    fn an_index_file_without_a_readable_line_is_no_crate() {
        for file in [
            "",
            "\n\n",
            "junk\n",
            r#"{"name":"other","vers":"1.0.0","deps":[],"cksum":""}"#,
        ] {
            assert!(
                CrateHistory::parse(file.as_bytes(), &name("foo")).is_none(),
                "{file:?}"
            );
        }
    }
}
