//! The path of a crate's index file.

use super::CrateName;

/// The path of an index file: lower case, two or three components, the last of them the crate's name.
///
/// Source: "Index files" in the cargo book. The length of the name decides: `1/a`, `2/io`, `3/s/syn`, `se/rd/serde`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexPath {
    path: String,
    /// The position of the name, behind the last slash.
    file: usize,
}

impl IndexPath {
    /// The whole path, as in `se/rd/serde`.
    pub(crate) fn as_str(&self) -> &str {
        &self.path
    }

    /// Reads the path of an index file. `None` for a path that no index file can have: wrong letter case, wrong directory,
    /// or no crate name.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let (directories, name) = path.rsplit_once('/')?;
        Self::is_path(directories, name).then(|| Self {
            path: path.to_owned(),
            file: directories.len() + 1,
        })
    }

    /// Whether an index file can have this name in these directories.
    pub(crate) fn is_path(directories: &str, name: &str) -> bool {
        // Every request for an index file and every file of a new directory comes through here, so the expected
        // directories are compared, not made.
        let in_place = match parts(name) {
            None => false,
            Some((first, None)) => directories == first,
            Some((first, Some(second))) => directories.split_once('/') == Some((first, second)),
        };
        let is_lowercase = || !name.bytes().any(|byte| byte.is_ascii_uppercase());
        in_place && is_lowercase() && CrateName::is_valid(name)
    }

    /// The directories above the file, in order: one or two of them.
    pub(crate) fn directories(&self) -> std::str::Split<'_, char> {
        self.prefix().split('/')
    }

    /// The directories above the file as one path without a trailing slash, like `se/rd`. This is cargo's
    /// `{lowerprefix}` placeholder.
    pub(crate) fn prefix(&self) -> &str {
        self.path.get(..self.file - 1).unwrap_or_default()
    }

    /// The name of the file: the crate's name in lower case.
    pub(crate) fn file(&self) -> &str {
        self.path.get(self.file..).unwrap_or_default()
    }
}

impl From<&CrateName> for IndexPath {
    fn from(name: &CrateName) -> Self {
        let name = name.to_lowercase();
        let mut path = prefix(&name);
        path.push('/');
        let file = path.len();
        path.push_str(&name);
        Self { path, file }
    }
}

/// The directories of a name's index file, in the letter case of `name`. `None` for a text that is too short, or not ASCII
/// where it is cut.
fn parts(name: &str) -> Option<(&str, Option<&str>)> {
    Some(match name.len() {
        0 => return None,
        1 => ("1", None),
        2 => ("2", None),
        3 => ("3", Some(name.get(..1)?)),
        _ => (name.get(..2)?, Some(name.get(2..4)?)),
    })
}

/// The directory part of a name's index path, in the letter case of `name`. This is cargo's `{prefix}` placeholder.
fn prefix(name: &str) -> String {
    let mut prefix = String::with_capacity(name.len() + 6);
    // Names are ASCII and not empty (see [`CrateName`]).
    if let Some((first, second)) = parts(name) {
        prefix.push_str(first);
        if let Some(second) = second {
            prefix.push('/');
            prefix.push_str(second);
        }
    }
    prefix
}

impl CrateName {
    /// cargo's `{prefix}` placeholder: the directory part of the index path without lowercasing, like `Mi/xe`.
    pub(crate) fn prefix(&self) -> String {
        prefix(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(name: &str) -> String {
        let name = CrateName::try_from(name.to_owned()).unwrap();
        let path = IndexPath::from(&name);
        format!("{}/{}", path.prefix(), path.file())
    }

    #[test]
    fn the_length_of_the_name_decides_the_directories() {
        for (name, expected) in [
            ("a", "1/a"),
            ("io", "2/io"),
            ("Syn", "3/s/syn"),
            ("a-b", "3/a/a-b"),
            ("Serde", "se/rd/serde"),
            ("a-b-c", "a-/b-/a-b-c"),
            ("cargo", "ca/rg/cargo"),
            ("abcd", "ab/cd/abcd"),
        ] {
            assert_eq!(path(name), expected);
        }
    }

    #[test]
    fn the_prefix_placeholder_keeps_the_letter_case() {
        let name = CrateName::try_from("MixedCase".to_owned()).unwrap();
        assert_eq!(name.prefix(), "Mi/xe");
        assert_eq!(IndexPath::from(&name).prefix(), "mi/xe");
    }

    #[test]
    fn only_the_one_path_of_a_crate_is_read() {
        for good in ["1/a", "2/io", "3/s/syn", "se/rd/serde", "a-/b-/a-b-c"] {
            assert!(IndexPath::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "/",
            "serde",
            "se/rd",
            "/se/rd/serde",
            "se/rd/serde/",
            "se//rd/serde",
            "Se/rd/Serde",
            "se/rd/Serde",
            "SE/RD/SERDE",
            "xx/yy/serde",
            "3/s/serde",
            "1/io",
            "1/1",
            "se/rd/../rd/serde",
            "se/rd/ser\u{0}de",
            ".github/x",
            "de/ad/dead\n",
            "ка/рг/карго",
            "config.json",
        ] {
            assert!(IndexPath::parse(bad).is_none(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_path_gives_its_name_back(text in "[a-zA-Z][a-zA-Z0-9_-]{0,63}") {
            let name = CrateName::try_from(text.clone()).unwrap();
            let path = IndexPath::from(&name);
            prop_assert_eq!(path.file(), text.to_lowercase());
            prop_assert!((1..=2).contains(&path.directories().count()));
            prop_assert!(path.directories().all(|directory| !directory.is_empty() && !directory.starts_with('.')));
            let again = CrateName::try_from(path.file().to_owned()).unwrap();
            prop_assert_eq!(&IndexPath::from(&again), &path);
            let whole = format!("{}/{}", path.prefix(), path.file());
            prop_assert_eq!(IndexPath::parse(&whole), Some(path));
        }
    }
}
