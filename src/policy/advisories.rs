//! The advisories of a RustSec database, by crate: which versions are malware, and which versions fix a vulnerability.
//!
//! Everything here is from outside. So sizes and numbers have limits, and only checked texts are kept: ids, crate names,
//! dates and version requirements. Titles and descriptions are not kept.

use std::collections::{BTreeMap, HashSet};
use std::ops::{Bound, RangeBounds};
use std::panic::catch_unwind;

use rustsec::Advisory;
use rustsec::advisory::{Category, Versions};
use rustsec::osv::ranges_for_advisory;
use semver::{Version, VersionReq};

use crate::package::{CrateName, Timestamp, canonical};

/// The largest advisory that is read. The largest real one has about 10 kB.
pub(crate) const ADVISORY_BYTES_MAX: usize = 256 * 1024;

/// Advisories in one database. RustSec's has about 1,500.
const ADVISORIES_MAX: usize = 100_000;

/// The bytes of all advisories in one database. RustSec's has about 3 MB.
const DATABASE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Version requirements in one advisory. Comparing them takes quadratic time.
const REQUIREMENTS_MAX: usize = 100;

/// Version requirements in one database. Each takes about 300 bytes of memory.
const ALL_REQUIREMENTS_MAX: usize = 200_000;

/// How an advisory begins. The library panics on some files that begin in another way.
const FRONT_MATTER: &str = "```toml";

/// The id of an advisory without a number, in drafts.
const DRAFT_ID: &str = "RUSTSEC-0000-0000";

/// The seconds of a day.
const DAY_SECONDS: i64 = 86_400;

/// A range of versions, as the library computes it: the first bound is included, the second one is not.
type AffectedRange = (Bound<Version>, Bound<Version>);

/// All advisories of a database at one commit, by crate.
#[derive(Debug, Default)]
pub(crate) struct Advisories {
    /// The commit of the database, in hexadecimal.
    pub(crate) commit: String,
    by_crate: BTreeMap<String, Vec<CrateAdvisory>>,
    /// The number of files that are no usable advisories.
    pub(crate) skipped: usize,
}

/// One advisory about one crate.
///
/// Invariants: the id has the form of RustSec's ids. Equal advisories lead to equal decisions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CrateAdvisory {
    /// The id, such as `RUSTSEC-2026-0265`.
    pub(crate) id: String,
    kind: Kind,
    /// The end of the advisory's date: 00:00 UTC of the next day.
    end_of_day: Timestamp,
    /// The requirements that patched versions meet.
    pub(crate) patched: Vec<VersionReq>,
    affected: Vec<AffectedRange>,
}

/// The part of an advisory that decides what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// It was withdrawn because it was wrong.
    Withdrawn,
    /// Malware in all versions, those to come included.
    MalwareForEver,
    /// Malware in versions that were published until the end of the advisory's date.
    Malware,
    /// A remark, such as that a crate is not maintained.
    Informational,
    /// A vulnerability.
    Vulnerability,
}

/// A database that is larger than the mirror reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooLarge {
    #[error("it has more than {ADVISORIES_MAX} advisories")]
    Advisories,
    #[error("it has more than {DATABASE_BYTES_MAX} bytes")]
    Bytes,
    #[error("it has more than {ALL_REQUIREMENTS_MAX} version requirements")]
    Requirements,
}

/// Collects the advisories of a database.
#[derive(Debug, Default)]
pub(crate) struct AdvisoryReader {
    advisories: Advisories,
    files: usize,
    bytes: usize,
    requirements: usize,
}

impl AdvisoryReader {
    /// Reads the file of one advisory. An unusable file is skipped and counted. Returns why it was skipped, on one line.
    ///
    /// # Errors
    /// [`TooLarge`] if the database as a whole is too large.
    pub(crate) fn add(&mut self, file: &[u8]) -> Result<Option<&'static str>, TooLarge> {
        self.bytes = self.bytes.saturating_add(file.len());
        if self.bytes > DATABASE_BYTES_MAX {
            return Err(TooLarge::Bytes);
        }
        let advisory = match read(file) {
            Ok(advisory) => advisory,
            Err(why) => return self.skip(why),
        };
        self.note_file()?;
        let Some((name, advisory)) = advisory else {
            return Ok(None);
        };
        // Without a requirement there is one range: everything.
        self.requirements += advisory.patched.len() + advisory.affected.len();
        if self.requirements > ALL_REQUIREMENTS_MAX {
            return Err(TooLarge::Requirements);
        }
        let by_crate = &mut self.advisories.by_crate;
        by_crate.entry(name).or_default().push(advisory);
        Ok(None)
    }

    /// Counts a file that cannot be used, and returns the reason again.
    ///
    /// # Errors
    /// [`TooLarge`] if the database as a whole is too large.
    pub(crate) fn skip(&mut self, why: &'static str) -> Result<Option<&'static str>, TooLarge> {
        self.note_file()?;
        self.advisories.skipped += 1;
        Ok(Some(why))
    }

    fn note_file(&mut self) -> Result<(), TooLarge> {
        self.files += 1;
        if self.files > ADVISORIES_MAX {
            return Err(TooLarge::Advisories);
        }
        Ok(())
    }

    /// The advisories so far, as those of this commit.
    pub(crate) fn finish(self, commit: String) -> Advisories {
        let mut advisories = self.advisories;
        for of_crate in advisories.by_crate.values_mut() {
            // The order of the files must not matter.
            of_crate.sort_by(|left, right| left.id.cmp(&right.id));
        }
        Advisories {
            commit,
            ..advisories
        }
    }
}

impl Advisories {
    /// The advisories about a crate, sorted by id. The name is canonical: in lower case, with `_` for `-`.
    pub(crate) fn of(&self, canonical_name: &str) -> &[CrateAdvisory] {
        self.by_crate.get(canonical_name).map_or(&[], Vec::as_slice)
    }

    /// The number of advisories that are used.
    pub(crate) fn count(&self) -> usize {
        self.by_crate.values().map(Vec::len).sum()
    }

    /// The canonical names of all crates with an advisory, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_crate.keys().map(String::as_str)
    }

    /// The canonical names of the crates about which two databases say different things.
    pub(crate) fn differences<'a>(&'a self, other: &'a Self) -> HashSet<&'a str> {
        let names = self.names().chain(other.names());
        names
            .filter(|name| self.of(name) != other.of(name))
            .collect()
    }
}

impl CrateAdvisory {
    /// Whether it was withdrawn. Such an advisory does nothing.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.kind == Kind::Withdrawn
    }

    /// Whether it is about malware, and was not withdrawn.
    pub(crate) fn is_malware(&self) -> bool {
        matches!(self.kind, Kind::Malware | Kind::MalwareForEver)
    }

    /// Whether its fixes are exempt from holding: it is about a vulnerability, and was not withdrawn.
    pub(crate) fn exempts_fixes(&self) -> bool {
        self.kind == Kind::Vulnerability
    }

    /// Whether this version is malware. `published` is the `pubtime` of its index line, if that has a readable one.
    ///
    /// A version that was published after the advisory's date is not: an honest release after an attack works. If the
    /// whole crate is malicious, every version is.
    pub(crate) fn blocks(&self, version: &Version, published: Option<&Timestamp>) -> bool {
        match self.kind {
            Kind::MalwareForEver => true,
            Kind::Malware => {
                self.affects(version)
                    && published.is_none_or(|published| *published < self.end_of_day)
            }
            Kind::Withdrawn | Kind::Informational | Kind::Vulnerability => false,
        }
    }

    /// Whether the version is in the advisory's range, whatever the advisory is about.
    pub(crate) fn affects(&self, version: &Version) -> bool {
        self.affected.iter().any(|range| range.contains(version))
    }

    /// Whether the advisory lists the version as patched.
    pub(crate) fn lists_as_patched(&self, version: &Version) -> bool {
        self.patched
            .iter()
            .any(|requirement| requirement.matches(version))
    }
}

/// Reads an advisory: the canonical name of its crate, and what it says. `None` for a draft, and for an advisory about a
/// crate of another registry.
fn read(file: &[u8]) -> Result<Option<(String, CrateAdvisory)>, &'static str> {
    if file.len() > ADVISORY_BYTES_MAX {
        return Err("it is too large");
    }
    let text = std::str::from_utf8(file).map_err(|_no_text| "it is not UTF-8")?;
    if !text.starts_with(FRONT_MATTER) {
        return Err("it does not begin with TOML between fences");
    }
    // The library checks its own steps with `assert!`: two requirements that begin at the same version make it panic. Such
    // a file must not end the task that reads it.
    let read = catch_unwind(|| {
        let advisory: Advisory = text.parse().ok()?;
        let affected = affected(&advisory.versions)?;
        Some((advisory, affected))
    });
    let (advisory, affected) = read
        .ok()
        .flatten()
        .ok_or("the library `rustsec` cannot read it")?;
    let metadata = &advisory.metadata;
    let id = metadata.id.as_str();
    if !is_rustsec_id(id) {
        return Err("its id is not of the form RUSTSEC-2026-0001");
    }
    let name = CrateName::try_from(metadata.package.as_str().to_owned())
        .map_err(|_no_name| "its package is no crate name")?;
    let end_of_day =
        end_of_day(metadata.date.as_str()).ok_or("its date is not of the form 2026-08-20")?;
    let is_elsewhere = metadata
        .source
        .as_ref()
        .is_some_and(|source| !source.is_default_registry());
    if id == DRAFT_ID || is_elsewhere {
        return Ok(None);
    }
    let versions = &advisory.versions;
    let is_malicious = metadata.categories.contains(&Category::Malicious);
    let has_no_versions = versions.patched().is_empty() && versions.unaffected().is_empty();
    let kind = if metadata.withdrawn.is_some() {
        Kind::Withdrawn
    } else if is_malicious && has_no_versions {
        Kind::MalwareForEver
    } else if is_malicious || metadata.expect_deleted {
        Kind::Malware
    } else if metadata.informational.is_some() {
        Kind::Informational
    } else {
        Kind::Vulnerability
    };
    let advisory = CrateAdvisory {
        id: id.to_owned(),
        kind,
        end_of_day,
        patched: versions.patched().to_vec(),
        affected,
    };
    Ok(Some((canonical(name.as_str()), advisory)))
}

/// The ranges of affected versions. `None` for too many requirements.
fn affected(versions: &Versions) -> Option<Vec<AffectedRange>> {
    if versions.patched().len() + versions.unaffected().len() > REQUIREMENTS_MAX {
        return None;
    }
    let ranges = ranges_for_advisory(versions).into_iter().map(|range| {
        let from = range.introduced.map_or(Bound::Unbounded, Bound::Included);
        let to = range.fixed.map_or(Bound::Unbounded, Bound::Excluded);
        (from, to)
    });
    Some(ranges.collect())
}

/// 00:00 UTC of the day after this one.
fn end_of_day(date: &str) -> Option<Timestamp> {
    let midnight = Timestamp::try_from(format!("{date}T00:00:00Z")).ok()?;
    Timestamp::from_unix_seconds(midnight.unix_seconds() + DAY_SECONDS)
}

/// Whether a text is of the form `RUSTSEC-2026-0001`: a year, and four digits or a few more.
fn is_rustsec_id(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let rest = text.strip_prefix("RUSTSEC-");
    rest.and_then(|rest| rest.split_once('-'))
        .is_some_and(|(year, number)| {
            year.len() == 4 && digits(year) && (4..=9).contains(&number.len()) && digits(number)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An advisory file with these lines in the tables `advisory` and `versions`.
    fn file(id: &str, package: &str, advisory: &str, versions: &str) -> String {
        format!(
            "```toml\n[advisory]\nid = \"{id}\"\npackage = \"{package}\"\ndate = \"2026-08-20\"\n{advisory}\n\
             [versions]\n{versions}\n```\n\n# A title\n\nA description.\n"
        )
    }

    fn read_all(files: &[String]) -> Advisories {
        let mut reader = AdvisoryReader::default();
        for file in files {
            reader.add(file.as_bytes()).unwrap();
        }
        reader.finish("c0ffee".to_owned())
    }

    /// The only advisory of a database with this file.
    fn only(advisory: &str, versions: &str) -> CrateAdvisory {
        let all = read_all(&[file("RUSTSEC-2026-0001", "evil", advisory, versions)]);
        let [only] = all.of("evil") else {
            panic!("{all:?}");
        };
        only.clone()
    }

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn time(text: &str) -> Timestamp {
        Timestamp::try_from(text.to_owned()).unwrap()
    }

    const MALICIOUS: &str = "categories = [\"malicious\"]";
    const DELETED: &str = "expect-deleted = true";
    const NONE: &str = "patched = []";
    const ONE: &str = "patched = [\"> 0.3.10\"]\nunaffected = [\"< 0.3.10\"]";

    #[test]
    fn malware_is_blocked_until_the_end_of_the_advisorys_date_or_for_ever() {
        let during = "2026-08-20T23:59:59Z";
        let after = "2026-08-21T00:00:00Z";
        for (advisory, versions, which, published, blocked) in [
            // A crate that is malicious as a whole.
            (MALICIOUS, NONE, "0.1.0", Some(during), true),
            (MALICIOUS, NONE, "9.0.0-rc.1", Some(after), true),
            (MALICIOUS, NONE, "9.0.0", None, true),
            // One release of a good crate.
            (MALICIOUS, ONE, "0.3.10", Some(during), true),
            (MALICIOUS, ONE, "0.3.10", Some("2026-08-20T23:59:60Z"), true),
            (MALICIOUS, ONE, "0.3.10", Some(after), false),
            (MALICIOUS, ONE, "0.3.10", None, true),
            (MALICIOUS, ONE, "0.3.9", Some(during), false),
            (MALICIOUS, ONE, "0.3.9", None, false),
            (MALICIOUS, ONE, "0.3.11", Some(during), false),
            (
                MALICIOUS,
                "patched = [\">= 2.0.0\"]",
                "2.0.0-rc.1",
                Some(during),
                true,
            ),
            // Without the category the date counts for every version.
            (DELETED, NONE, "0.1.0", Some(during), true),
            (DELETED, NONE, "0.1.0", None, true),
            (DELETED, NONE, "0.1.0", Some(after), false),
            (DELETED, ONE, "0.3.10", Some(during), true),
            (DELETED, ONE, "0.3.11", Some(during), false),
            // Both.
            (
                "expect-deleted = true\ncategories = [\"malicious\"]",
                NONE,
                "1.0.0",
                Some(after),
                true,
            ),
            // A remark that is malware is malware.
            (
                "informational = \"notice\"\ncategories = [\"malicious\"]",
                NONE,
                "1.0.0",
                None,
                true,
            ),
            // No malware.
            (
                "withdrawn = \"2026-08-21\"\ncategories = [\"malicious\"]",
                NONE,
                "1.0.0",
                None,
                false,
            ),
            (
                "withdrawn = \"2026-08-21\"\nexpect-deleted = true",
                ONE,
                "0.3.10",
                None,
                false,
            ),
            ("expect-deleted = false", NONE, "1.0.0", None, false),
            (
                "categories = [\"code-execution\"]",
                NONE,
                "1.0.0",
                None,
                false,
            ),
            (
                "informational = \"unmaintained\"",
                NONE,
                "1.0.0",
                None,
                false,
            ),
            ("", NONE, "1.0.0", None, false),
        ] {
            let found = only(advisory, versions);
            let published = published.map(time);
            assert_eq!(
                found.blocks(&version(which), published.as_ref()),
                blocked,
                "{advisory} {versions} {which} {published:?}"
            );
            let is_malware = !advisory.contains("withdrawn")
                && (advisory.contains("malicious") || advisory.contains("deleted = true"));
            assert_eq!(found.is_malware(), is_malware, "{advisory}");
            assert_eq!(found.is_withdrawn(), advisory.contains("withdrawn"));
        }
    }

    #[test]
    fn only_vulnerabilities_exempt_their_fixes() {
        let patched = "patched = [\"^1.0.5\", \">= 1.2.3\"]\nunaffected = [\"< 0.9.0\"]";
        for (advisory, exempts) in [
            ("", true),
            (
                "categories = [\"memory-corruption\"]\nkeywords = [\"x\"]",
                true,
            ),
            ("informational = \"unsound\"", false),
            ("withdrawn = \"2026-08-21\"", false),
            (MALICIOUS, false),
            (DELETED, false),
        ] {
            let versions =
                "patched = [\">= 1.0.5, < 1.1.0\", \">= 1.2.3\"]\nunaffected = [\"< 0.9.0\"]";
            let found = only(advisory, versions);
            assert_eq!(found.exempts_fixes(), exempts, "{advisory}");
            let requirements: Vec<String> = found.patched.iter().map(ToString::to_string).collect();
            assert_eq!(requirements, [">=1.0.5, <1.1.0", ">=1.2.3"]);
            for (which, affected, patched) in [
                ("0.8.9", false, false),
                ("0.9.0", true, false),
                ("1.0.4", true, false),
                ("1.0.5-rc.1", true, false),
                ("1.0.5", false, true),
                ("1.0.5+build", false, true),
                ("1.1.0", true, false),
                ("1.2.3", false, true),
                ("2.0.0", false, true),
                // Neither vulnerable nor what a requirement selects.
                ("2.0.0-rc.1", false, false),
            ] {
                assert_eq!(found.affects(&version(which)), affected, "{which}");
                assert_eq!(found.lists_as_patched(&version(which)), patched, "{which}");
            }
        }
        // Ranges that overlap have no meaning.
        let all = read_all(&[file("RUSTSEC-2026-0001", "evil", "", patched)]);
        assert_eq!((all.count(), all.skipped), (0, 1));
    }

    #[test]
    fn unusable_files_are_skipped_and_counted_and_nothing_panics() {
        let good = file("RUSTSEC-2026-0001", "a-B_c", "", NONE);
        let with = |from: &str, to: &str| good.replace(from, to);
        let bad = [
            String::new(),
            "```toml".to_owned(),
            // The library slices this text inside of a character.
            format!("# {}é advisory", "x".repeat(17)),
            good.trim_start_matches("```toml").to_owned(),
            with("\n```\n", "\n"),
            with("# A title", "A title"),
            with("RUSTSEC-2026-0001", "RUSTSEC-2026-1"),
            with("RUSTSEC-2026-0001", "RUSTSEC-26-0001"),
            with("RUSTSEC-2026-0001", "RUSTSEC-2026-0001-1"),
            with("RUSTSEC-2026-0001", "CVE-2026-0001"),
            with("RUSTSEC-2026-0001", "RUSTSEC-2026-+001"),
            with("RUSTSEC-2026-0001", "RUSTSEC-2026-0001\\u001b"),
            with("a-B_c", "../../etc"),
            with("a-B_c", "a\\u000ab"),
            with("a-B_c", ""),
            with("2026-08-20", "20 August 2026"),
            with("2026-08-20", "20260820"),
            with("2026-08-20", "2026-02-30"),
            with(NONE, "patched = \"> 1\""),
            with(NONE, "patched = [\"> 1, < 2, < 3\"]"),
            with(NONE, "patched = [\"y\"]"),
            with(NONE, "patched = [\"1.*\"]"),
            // The library asserts that no two ranges begin at the same version.
            with(NONE, "patched = [\"= 1.0.0\", \"> 1.0.0\"]"),
            with("[versions]", "[version]"),
            with(NONE, &format!("patched = {}", "[".repeat(10_000))),
            with(
                NONE,
                &format!(
                    "patched = [{}]",
                    (0..=REQUIREMENTS_MAX)
                        .map(|number| format!("\"= {number}.0.0\""))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            ),
            with("A description.", &"x".repeat(ADVISORY_BYTES_MAX)),
        ];
        for file in &bad {
            let all = read_all(std::slice::from_ref(file));
            assert_eq!((all.count(), all.skipped), (0, 1), "{file:.200}");
        }
        let mut reader = AdvisoryReader::default();
        assert_eq!(
            reader.add(b"```toml\n\xff\n```\n").unwrap(),
            Some("it is not UTF-8")
        );
        assert_eq!(
            reader.skip("it is a directory").unwrap(),
            Some("it is a directory")
        );
        assert_eq!(reader.add(good.as_bytes()).unwrap(), None);
        let all = reader.finish("c0ffee".to_owned());
        assert_eq!(
            (all.count(), all.skipped, all.commit.as_str()),
            (1, 2, "c0ffee")
        );
        // Drafts, and advisories about other registries, are no errors.
        let elsewhere = "source = \"registry+https://registry.example/index\"";
        let here = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
        let all = read_all(&[
            with("RUSTSEC-2026-0001", "RUSTSEC-0000-0000"),
            file("RUSTSEC-2026-0002", "other", elsewhere, NONE),
            file("RUSTSEC-2026-0003", "here", here, NONE),
        ]);
        assert_eq!(
            (all.names().collect::<Vec<_>>(), all.skipped),
            (vec!["here"], 0)
        );
    }

    #[test]
    fn names_are_canonical_and_line_breaks_of_windows_are_fine() {
        let first = file("RUSTSEC-2026-0002", "Foo-Bar", MALICIOUS, ONE);
        let second = file("RUSTSEC-2026-0001", "foo_bar", "", ONE).replace('\n', "\r\n");
        // A file may lack the first head: that is the newest form.
        let third = file("RUSTSEC-2026-12345", "baz", "", NONE).replace("[advisory]\n", "");
        let all = read_all(&[first, second, third]);
        let ids = |name| {
            all.of(name)
                .iter()
                .map(|advisory| advisory.id.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids("foo_bar"), ["RUSTSEC-2026-0001", "RUSTSEC-2026-0002"]);
        assert_eq!(ids("baz"), ["RUSTSEC-2026-12345"]);
        assert!(all.of("Foo-Bar").is_empty() && all.of("foobar").is_empty());
        assert_eq!(all.skipped, 0);
    }

    #[test]
    fn the_crates_that_differ_between_two_databases_are_known() {
        let files = |range: &str| {
            vec![
                file("RUSTSEC-2026-0001", "same", MALICIOUS, NONE),
                file("RUSTSEC-2026-0002", "changed", MALICIOUS, range),
            ]
        };
        let old = read_all(&files(ONE));
        let mut reordered = files(ONE);
        reordered.reverse();
        // Another text, and the same meaning.
        let reworded = reordered
            .iter()
            .map(|file| file.replace("A description", "More words"));
        let same = read_all(&reworded.collect::<Vec<_>>());
        assert!(old.differences(&same).is_empty());
        let mut more = files("patched = [\"> 0.3.11\"]\nunaffected = [\"< 0.3.10\"]");
        more.push(file("RUSTSEC-2026-0003", "added", "", NONE));
        let new = read_all(&more);
        let expected = HashSet::from(["added", "changed"]);
        assert_eq!(old.differences(&new), expected);
        assert_eq!(new.differences(&old), expected);
    }

    #[test]
    fn a_database_that_is_too_large_is_refused() {
        let mut reader = AdvisoryReader::default();
        for _ in 0..ADVISORIES_MAX {
            reader.skip("it is empty").unwrap();
        }
        assert_eq!(reader.skip("it is empty"), Err(TooLarge::Advisories));
        assert_eq!(reader.add(b""), Err(TooLarge::Advisories));
        let mut reader = AdvisoryReader::default();
        let large = vec![b'x'; ADVISORY_BYTES_MAX];
        for _ in 0..DATABASE_BYTES_MAX / ADVISORY_BYTES_MAX {
            reader.add(&large).unwrap();
        }
        assert_eq!(reader.add(b"x"), Err(TooLarge::Bytes));
        let mut reader = AdvisoryReader {
            requirements: ALL_REQUIREMENTS_MAX - 1,
            ..AdvisoryReader::default()
        };
        let one = file("RUSTSEC-2026-0001", "a", "", NONE);
        reader.add(one.as_bytes()).unwrap();
        assert_eq!(reader.add(one.as_bytes()), Err(TooLarge::Requirements));
    }

    proptest! {
        #[test]
        fn no_file_makes_the_reader_panic(
            advisory in "\\PC{0,40}",
            patched in "(\"(<|>|=|<=|>=|\\^|~)? ?[0-9]{1,20}(\\.[0-9]{1,20}){0,2}(-[a-z0-9.]{1,4})?\",? ?){0,4}",
            cut in 0_usize..200,
        ) {
            let whole = file("RUSTSEC-2026-0001", "a", &advisory, &format!("patched = [{patched}]"));
            let cut: String = whole.chars().take(cut).collect();
            for text in [whole, cut, advisory] {
                let all = read_all(&[text]);
                prop_assert_eq!(all.count() + all.skipped, 1);
            }
        }
    }
}
