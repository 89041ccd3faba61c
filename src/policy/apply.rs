//! Applies rules to an index file.

use super::rules::{Facts, Line, Reason, Rules, Shown};
use crate::package::with_yanked;

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

/// Decides about every line of an index file, and counts the changes.
pub(crate) fn apply(
    rules: &Rules,
    facts: &Facts,
    content: &[u8],
    counts: &mut Counts,
) -> ShownFile {
    let mut shown = Vec::new();
    let mut is_edited = false;
    // Each line keeps its line break, so unchanged lines are copied byte for byte.
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let decision = rules.decide(&Line::parse(line), facts);
        match decision.shown {
            Shown::AsIs => shown.extend_from_slice(line),
            Shown::Hidden => {
                is_edited = true;
                counts.not_stored += usize::from(decision.reason == Some(Reason::NotStored));
            }
            Shown::Yanked(yanked) => match with_yanked(line, yanked) {
                Some(edited) => {
                    // The flag may have this value already. A file without changes must keep its blob.
                    let changes = edited != line;
                    is_edited |= changes;
                    counts.yanked += usize::from(changes);
                    shown.extend_from_slice(&edited);
                }
                None => {
                    is_edited = true;
                    counts.left_out += 1;
                }
            },
        }
    }
    match is_edited {
        _ if shown.is_empty() => ShownFile::Hidden,
        true => ShownFile::Edited(shown),
        false => ShownFile::AsIs,
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
    use std::time::SystemTime;

    use super::*;
    use crate::index::testing::{checksum, line};
    use crate::policy::Rule;

    fn shown(rule: Rule, content: &str, stored: &[u8]) -> (ShownFile, Counts) {
        let facts = Facts {
            stored: stored.iter().map(|number| checksum(*number)).collect(),
            now: SystemTime::UNIX_EPOCH,
        };
        let mut counts = Counts::default();
        let rules = Rules::new(vec![rule]);
        let shown = apply(&rules, &facts, content.as_bytes(), &mut counts);
        (shown, counts)
    }

    #[test]
    fn lines_of_stored_files_stay_byte_for_byte_and_the_others_are_hidden() {
        let (one, two, three) = (line("a", 1), line("a", 2), line("a", 3));
        let spaced = format!(
            " {{ \"name\" : \"a\" ,\t\"cksum\"  :\"\\u0030{}\" }} \r",
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
