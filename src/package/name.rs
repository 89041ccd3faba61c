//! The name of a crate, and when two spellings mean the same crate.

use std::cmp::Ordering;
use std::fmt;

use serde::Deserialize;

/// The most characters that crates.io accepts in a crate name.
const NAME_MAX_CHARACTERS: usize = 64;

/// A crate name as crates.io accepts it.
///
/// Invariants:
/// - between 1 and 64 characters, all ASCII letters, digits, `-` or `_`;
/// - the first character is a letter.
///
/// Not promised: that such a crate exists, or that this is its published spelling. On crates.io, names that differ only in
/// case, or in `-` and `_`, mean the same crate. [`canonical_order`] compares them that way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct CrateName(String);

/// A text that is not a crate name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct NotAName {
    /// The text.
    pub(crate) text: String,
    /// What is wrong with it.
    pub(crate) why: &'static str,
}

impl CrateName {
    /// Whether crates.io would accept this name.
    pub(super) fn is_valid(text: &str) -> bool {
        check(text).is_ok()
    }

    /// The name as it was typed.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in lower case, as in the path of an index file.
    pub(crate) fn to_lowercase(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl TryFrom<String> for CrateName {
    type Error = NotAName;

    fn try_from(text: String) -> Result<Self, NotAName> {
        match check(&text) {
            Ok(()) => Ok(Self(text)),
            Err(why) => Err(NotAName { text, why }),
        }
    }
}

/// The rules of crates.io for names, in its order.
fn check(text: &str) -> Result<(), &'static str> {
    // The length in bytes is at least the length in characters, so the count is only needed for long texts.
    if text.len() > NAME_MAX_CHARACTERS && text.chars().count() > NAME_MAX_CHARACTERS {
        return Err("a crate name has at most 64 characters");
    }
    let (first, rest) = text
        .as_bytes()
        .split_first()
        .ok_or("a crate name cannot be empty")?;
    if !first.is_ascii_alphabetic() {
        return Err("a crate name begins with an ASCII letter");
    }
    if !rest
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    {
        return Err("a crate name consists of ASCII letters, digits, `-` and `_`");
    }
    Ok(())
}

impl fmt::Display for CrateName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A name in lower case, with `_` for `-`: equal for all spellings of a crate.
pub(crate) fn canonical(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// Compares names without regard to case, and with `-` equal to `_`, so that all spellings of a crate are equal.
///
/// This is the uniqueness key of crates.io, applied during the comparison so that no second string is built.
pub(crate) fn canonical_order(left: &str, right: &str) -> Ordering {
    let key = |byte: u8| match byte {
        b'-' => b'_',
        other => other.to_ascii_lowercase(),
    };
    left.bytes().map(key).cmp(right.bytes().map(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<CrateName, &'static str> {
        CrateName::try_from(text.to_owned()).map_err(|not_a_name| not_a_name.why)
    }

    #[test]
    fn a_name_is_valid_exactly_if_crates_io_accepts_it() {
        for good in [
            "a",
            "A",
            "cc",
            "RustyXML",
            "a-b_c",
            "serde1",
            "a--",
            "nul",
            "std",
            &"x".repeat(64),
        ] {
            assert_eq!(parse(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", "cannot be empty"),
            ("1abc", "begins with an ASCII letter"),
            ("_a", "begins with an ASCII letter"),
            ("-a", "begins with an ASCII letter"),
            ("京", "begins with an ASCII letter"),
            ("a京", "consists of ASCII letters"),
            ("a/b", "consists of ASCII letters"),
            ("a b", "consists of ASCII letters"),
            ("a.b", "consists of ASCII letters"),
            ("a\0", "consists of ASCII letters"),
            (&"x".repeat(65), "at most 64 characters"),
            // Characters are counted, not bytes: 40 of these are 120 bytes, so the name is bad but not too long.
            (&"京".repeat(40), "begins with an ASCII letter"),
        ] {
            assert!(parse(bad).unwrap_err().contains(why), "{bad:?}");
        }
    }

    #[test]
    fn spellings_of_one_crate_are_equal_in_canonical_order() {
        assert_eq!(canonical_order("Foo-Bar", "foo_bar"), Ordering::Equal);
        assert_ne!(canonical_order("foobar", "foo_bar"), Ordering::Equal);
        assert_eq!(canonical_order("a", "ab"), Ordering::Less);
        assert_eq!(canonical("Foo-Bar"), "foo_bar");
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in "\\PC*") {
            if let Ok(name) = parse(&text) {
                prop_assert_eq!(name.as_str(), text.as_str());
            }
        }

        #[test]
        fn every_name_by_the_rules_is_accepted(text in "[a-zA-Z][a-zA-Z0-9_-]{0,63}") {
            prop_assert!(parse(&text).is_ok());
            let other: String = text.to_uppercase().replace('-', "_");
            prop_assert_eq!(canonical_order(&text, &other), Ordering::Equal);
        }
    }
}
