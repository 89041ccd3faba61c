//! Applies rules to an index file.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::crate_policy::CratePolicy;
use super::decision::{PolicyState, Reason, Shown};
use super::line::Line;
use super::rules::{Facts, Rule, Rules};
use super::yank_guard::caret;
use crate::package::{Checksum, Timestamp, with_yanked};

/// The result for an index file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ShownFile {
    /// No line is shown.
    Hidden,
    /// Every byte is shown.
    AsIs,
    /// These bytes are shown. Lines are missing, or have another yanked flag. Everything else is unchanged.
    Edited(Vec<u8>),
}

/// The number of lines that the rules have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Hidden, because the crate file is not stored.
    pub(crate) not_stored: usize,
    /// Shown with another yanked flag.
    pub(crate) yanked: usize,
    /// Hidden, because the line cannot be edited. Showing it without the change would bypass the rules.
    pub(crate) left_out: usize,
}

/// What the policy has found in an index file. The default is that of a file about which it has nothing to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct FileState {
    /// The next policy time at which a decision changes by itself, in seconds since 1970.
    pub(crate) next_change: Option<i64>,
    /// Versions that are held.
    pub(crate) held: u32,
    /// Versions that are denied.
    pub(crate) denied: u32,
    /// Versions that the yank guard keeps unyanked.
    pub(crate) frozen: u32,
    /// Lines that are left out, because they cannot be edited.
    pub(crate) left_out: u32,
    /// Lines without a publish time.
    pub(crate) without_time: u32,
    /// Whether the file could not be read, so nothing is known of its versions, and it is not shown.
    pub(crate) is_unread: bool,
    /// Differs between different decisions. 0 if there is no reason to name.
    pub(crate) digest: u64,
}

impl FileState {
    /// Whether the policy has decided anything about a version of this file.
    pub(crate) fn has_decisions(&self) -> bool {
        self.digest != 0
    }
}

/// A version with the decision about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DecidedVersion {
    /// The crate's name as published.
    pub(crate) name: String,
    /// The version as it was written.
    pub(crate) version: String,
    /// The version as numbers and identifiers.
    pub(crate) semver: semver::Version,
    /// When it was published, if the index says so.
    pub(crate) published: Option<Timestamp>,
    /// The checksum of its crate file, if the index has one.
    pub(crate) checksum: Option<Checksum>,
    /// Whether the upstream has yanked it.
    pub(crate) upstream_yanked: bool,
    /// Whether it is served as yanked; `None` if it is not served at all.
    pub(crate) served_yanked: Option<bool>,
    /// Why a rule matches; `None` if none does. In audit mode the rule changes nothing.
    pub(crate) reason: Option<Reason>,
}

/// A line of an index file, as the rules see it.
struct DecidedLine<'a> {
    /// Its bytes, with the line break.
    bytes: &'a [u8],
    line: Option<Line<'a>>,
    /// Why a rule matches, if one does.
    reason: Option<Reason>,
    /// How the line is shown. In audit mode: unchanged.
    shown: Shown,
}

/// What is shown of a line.
enum ShownLine<'a> {
    Line(Cow<'a, [u8]>),
    Hidden,
    /// It would have to be edited, and cannot be.
    LeftOut,
}

impl<'a> DecidedLine<'a> {
    fn shown(&self) -> ShownLine<'a> {
        match self.shown {
            Shown::AsIs => ShownLine::Line(Cow::Borrowed(self.bytes)),
            Shown::Hidden => ShownLine::Hidden,
            // The flag may have this value already.
            Shown::Yanked(yanked) => match with_yanked(self.bytes, yanked) {
                Some(edited) if edited == self.bytes => ShownLine::Line(Cow::Borrowed(self.bytes)),
                Some(edited) => ShownLine::Line(Cow::Owned(edited)),
                None => ShownLine::LeftOut,
            },
        }
    }
}

/// Decides about every line of the index file of a crate. `name` is the name of the file.
fn decide<'a>(
    rules: &Rules,
    facts: &Facts,
    name: &str,
    content: &'a [u8],
) -> (Vec<DecidedLine<'a>>, Option<i64>) {
    // Each line keeps its line break, so unchanged lines are copied byte for byte.
    let bytes: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
    let lines: Vec<Option<Line<'a>>> = bytes.iter().map(|bytes| Line::parse(bytes)).collect();
    let policy = rules
        .policy()
        .map(|settings| CratePolicy::new(settings, facts, name, &lines));
    let decide = |(place, line): (usize, &Option<Line<'_>>)| {
        // The first rule that matches decides, which gives their order its meaning.
        rules.0.iter().find_map(|rule| {
            let reason = match (rule, &policy, line) {
                // The policy looks at all versions together.
                (Rule::Policy(_), Some(policy), Some(line)) => policy.reason(place, line),
                _ => rule.decide(line.as_ref(), facts),
            }?;
            let shown = match rule.only_watches() {
                true => Shown::AsIs,
                false => reason.shown(),
            };
            Some((reason, shown))
        })
    };
    let decisions: Vec<Option<(Reason, Shown)>> = lines.iter().enumerate().map(decide).collect();
    let expiry = policy.as_ref().and_then(CratePolicy::next_expiry);
    drop(policy);
    let decided = bytes
        .into_iter()
        .zip(lines)
        .zip(decisions)
        .map(|((bytes, line), decision)| {
            let (reason, shown) = decision.unzip();
            DecidedLine {
                bytes,
                line,
                reason,
                shown: shown.unwrap_or(Shown::AsIs),
            }
        });
    (decided.collect(), expiry)
}

/// Decides about every line of an index file, and counts the changes. `name` is the name of the file.
pub(crate) fn apply(
    rules: &Rules,
    facts: &Facts,
    name: &str,
    content: &[u8],
    counts: &mut Counts,
) -> (ShownFile, FileState) {
    let mut shown = Vec::new();
    let mut is_edited = false;
    let mut state = FileState::default();
    let mut hasher = DefaultHasher::new();
    let (lines, expiry) = decide(rules, facts, name, content);
    state.next_change = expiry;
    for decided in &lines {
        match decided.shown() {
            ShownLine::Line(line) => {
                let changes = matches!(line, Cow::Owned(_));
                // A file without changes must keep its blob.
                is_edited |= changes;
                counts.yanked += usize::from(changes);
                shown.extend_from_slice(&line);
            }
            ShownLine::Hidden => {
                is_edited = true;
                let is_missing = decided.reason == Some(Reason::NotStored);
                counts.not_stored += usize::from(is_missing);
            }
            ShownLine::LeftOut => {
                is_edited = true;
                counts.left_out += 1;
                state.left_out += 1;
            }
        }
        if rules.policy().is_some()
            && let Some(line) = &decided.line
        {
            state.note(line, decided.reason.as_ref(), facts.policy_time);
            if let Some(reason) = &decided.reason {
                (&*line.text, reason).hash(&mut hasher);
                // Never 0, which means that there are no reasons.
                state.digest = hasher.finish() | 1;
            }
        }
    }
    let file = match is_edited {
        // A policy does not hide an empty file of the upstream.
        _ if shown.is_empty() && (is_edited || rules.may_hide()) => ShownFile::Hidden,
        true => ShownFile::Edited(shown),
        false => ShownFile::AsIs,
    };
    (file, state)
}

/// The decisions about the versions of a crate, in the order of its index file. `name` is the name of the file. Lines that
/// are no version of a crate are not listed.
pub(crate) fn decisions(
    rules: &Rules,
    facts: &Facts,
    name: &str,
    content: &[u8],
) -> Vec<DecidedVersion> {
    let (lines, _expiry) = decide(rules, facts, name, content);
    let of = |decided: DecidedLine<'_>| {
        let served_yanked = match decided.shown() {
            ShownLine::Line(_) => Some(match decided.shown {
                Shown::Yanked(yanked) => yanked,
                Shown::AsIs | Shown::Hidden => decided.line.as_ref()?.yanked,
            }),
            ShownLine::Hidden | ShownLine::LeftOut => None,
        };
        let line = decided.line?;
        Some(DecidedVersion {
            name: line.name.into_owned(),
            version: line.text.into_owned(),
            semver: line.version,
            published: line.published,
            checksum: line.checksum,
            upstream_yanked: line.yanked,
            served_yanked,
            reason: decided.reason,
        })
    };
    lines.into_iter().filter_map(of).collect()
}

/// The version to use instead of one that is held: the highest lower stable version that is served unyanked, of the same
/// caret range if there is one.
pub(crate) fn version_instead<'a>(
    versions: &'a [DecidedVersion],
    of: &semver::Version,
) -> Option<&'a str> {
    let is_usable = |version: &&DecidedVersion| {
        version.semver.pre.is_empty()
            && version.semver < *of
            && version.served_yanked == Some(false)
    };
    let usable = || versions.iter().filter(is_usable);
    let highest = |left: &&DecidedVersion, right: &&DecidedVersion| left.semver.cmp(&right.semver);
    let in_range = usable()
        .filter(|version| caret(&version.semver).matches(of))
        .max_by(highest);
    let found = in_range.or_else(|| usable().max_by(highest));
    found.map(|version| version.version.as_str())
}

impl FileState {
    fn note(&mut self, line: &Line<'_>, reason: Option<&Reason>, policy_time: i64) {
        self.without_time += u32::from(line.published.is_none());
        match reason.map_or(PolicyState::Allowed, Reason::state) {
            PolicyState::Allowed => {}
            PolicyState::Held => self.held += 1,
            PolicyState::Denied => self.denied += 1,
            PolicyState::Frozen => self.frozen += 1,
        }
        let until = reason.and_then(Reason::until);
        let until = until.filter(|until| *until > policy_time);
        self.next_change = self.next_change.into_iter().chain(until).min();
    }
}

impl Counts {
    /// Adds other counts.
    pub(crate) fn add(&mut self, other: Self) {
        self.not_stored += other.not_stored;
        self.yanked += other.yanked;
        self.left_out += other.left_out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::{checksum, line};
    use crate::policy::Rule;

    fn shown(rule: Rule, content: &str, stored: &[u8]) -> (ShownFile, Counts) {
        let stored = stored.iter().map(|number| checksum(*number)).collect();
        let facts = Facts::of_stored_files(stored);
        let mut counts = Counts::default();
        let rules = Rules::new(vec![rule]);
        let (shown, _) = apply(&rules, &facts, "a", content.as_bytes(), &mut counts);
        (shown, counts)
    }

    #[test]
    fn lines_of_stored_files_stay_byte_for_byte_and_the_others_are_hidden() {
        let (one, two, three) = (line("a", 1), line("a", 2), line("a", 3));
        let spaced = format!(
            " {{ \"name\" : \"a\" , \"vers\":\"1.0.0\",\t\"cksum\"  :\"\\u0030{}\" }} \r",
            checksum(4).to_string().strip_prefix('0').unwrap()
        );
        let text = format!("{one}\n{two}\njunk\n\n{{}}\n{three}\n{spaced}\n");
        let some = |text: String| ShownFile::Edited(text.into_bytes());
        for (numbers, expected) in [
            ([].as_slice(), ShownFile::Hidden),
            (&[9], ShownFile::Hidden),
            (&[1], some(format!("{one}\n"))),
            (&[3, 1], some(format!("{one}\n{three}\n"))),
            (&[4], some(format!("{spaced}\n"))),
            (
                &[1, 2, 3, 4],
                some(format!("{one}\n{two}\n{three}\n{spaced}\n")),
            ),
        ] {
            let (shown, counts) = shown(Rule::StoredOnly, &text, numbers);
            assert_eq!(shown, expected, "{numbers:?}");
            let stored = numbers.iter().filter(|number| **number != 9).count();
            assert_eq!(counts.not_stored, 7 - stored);
        }
        let without_end = format!("{one}\n{two}");
        let (shown, _) = shown(Rule::StoredOnly, &without_end, &[1, 2]);
        assert_eq!(shown, ShownFile::AsIs);
    }

    #[test]
    fn a_yanked_flag_is_all_that_changes_in_a_line() {
        // The checksums begin with 0 and the number, twice: 0x0003 and 0x0006 are multiples of 3.
        let lines = [1, 3, 4, 6].map(|number| line("a", number));
        let text = format!(
            "{}\n{}\njunk\n{}\n{}\n",
            lines[0], lines[1], lines[2], lines[3]
        );
        let (shown, counts) = shown(Rule::EveryThirdYanked, &text, &[]);
        let yanked = |line: &String| line.replace("\"yanked\":false", "\"yanked\":true");
        let expected = format!(
            "{}\n{}\njunk\n{}\n{}\n",
            lines[0],
            yanked(&lines[1]),
            lines[2],
            yanked(&lines[3])
        );
        assert_eq!(shown, ShownFile::Edited(expected.into_bytes()));
        assert_eq!((counts.yanked, counts.left_out), (2, 0));
    }

    #[test]
    fn a_line_that_cannot_be_edited_is_hidden() {
        let twice = format!(
            r#"{{"name":"a","vers":"1.0.0","cksum":"{}","yanked":false,"yanked":false}}"#,
            checksum(3)
        );
        let text = format!("{}\n{twice}\n", line("a", 1));
        let (shown, counts) = shown(Rule::EveryThirdYanked, &text, &[]);
        assert_eq!(
            shown,
            ShownFile::Edited(format!("{}\n", line("a", 1)).into_bytes())
        );
        assert_eq!(counts.left_out, 1);
    }
}
