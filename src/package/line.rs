//! One line of an index file: what the index says of one version.
//!
//! The rules of reading are cargo's (its book, "Index format", and its source). Index files are relayed byte for byte;
//! what is parsed here serves look-ups only.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Checksum, CrateName, CrateVersion, Timestamp};

/// The newest index line format whose every field is known here. A line with a higher `v` may give its fields other
/// shapes, but still names a version.
const KNOWN_FORMAT: u32 = 2;

/// Feature names and what each turns on.
pub(crate) type Features = BTreeMap<String, Vec<String>>;

/// What the index says of one version of a crate.
#[derive(Clone, Debug)]
pub(crate) struct IndexLine {
    /// The crate's name as published.
    pub(crate) name: CrateName,
    /// The version.
    pub(crate) version: CrateVersion,
    /// The SHA-256 of the crate file, as written. [`IndexLine::checksum`] gives it as a checked value.
    pub(crate) cksum: String,
    /// Whether the version was yanked.
    pub(crate) yanked: bool,
    /// The old-syntax features and `features2`, merged.
    pub(crate) features: Features,
    /// The native library that the crate links.
    pub(crate) links: Option<String>,
    /// The oldest Rust that the version builds with.
    pub(crate) rust_version: Option<String>,
    /// When the version was published; absent on lines that crates.io has not touched since 2026.
    pub(crate) pubtime: Option<Timestamp>,
    /// The dependencies in the order of the line.
    pub(crate) dependencies: Vec<IndexDependency>,
}

/// A dependency as an index line lists it.
#[derive(Clone, Debug)]
pub(crate) struct IndexDependency {
    /// The real name of the crate depended on, not the alias that the dependent renamed it to.
    pub(crate) crate_name: String,
    /// The version requirement.
    pub(crate) req: String,
    /// The features asked for, empty strings of old lines included.
    pub(crate) features: Vec<String>,
    /// Whether a feature must turn it on.
    pub(crate) optional: bool,
    /// Whether its default features are on.
    pub(crate) default_features: bool,
    /// A `cfg(…)` or target triple that it is limited to.
    pub(crate) target: Option<String>,
    /// `normal`, `build` or `dev`.
    pub(crate) kind: &'static str,
}

impl IndexLine {
    /// Reads one line. `None` for a line that cargo would skip or call invalid: look-ups skip it, too.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        match serde_json::from_slice::<RawLine>(line) {
            Ok(raw) => raw.into_line(),
            Err(_) => serde_json::from_slice::<RawFutureLine>(line)
                .ok()
                .filter(|raw| raw.v > KNOWN_FORMAT)?
                .into_line(),
        }
    }

    /// The checksum, if the line has a real one.
    pub(crate) fn checksum(&self) -> Option<Checksum> {
        Checksum::try_from(self.cksum.clone()).ok()
    }
}

/// The fields of a line in formats 1 and 2. Fields that are not named here are ignored, as cargo does.
#[derive(Deserialize)]
struct RawLine {
    name: String,
    vers: String,
    deps: Vec<RawDependency>,
    cksum: String,
    #[serde(default)]
    features: Features,
    #[serde(default)]
    features2: Option<Features>,
    #[serde(default)]
    yanked: Option<bool>,
    #[serde(default)]
    links: Option<String>,
    #[serde(default)]
    rust_version: Option<String>,
    #[serde(default)]
    pubtime: Option<Timestamp>,
}

impl RawLine {
    fn into_line(self) -> Option<IndexLine> {
        let mut features = self.features;
        for (name, more) in self.features2.unwrap_or_default() {
            features.entry(name).or_default().extend(more);
        }
        Some(IndexLine {
            name: CrateName::try_from(self.name).ok()?,
            version: CrateVersion::try_from(self.vers).ok()?,
            cksum: self.cksum,
            yanked: self.yanked.unwrap_or(false),
            features,
            links: self.links,
            rust_version: self.rust_version,
            pubtime: self.pubtime,
            dependencies: self
                .deps
                .into_iter()
                .map(RawDependency::into_dependency)
                .collect(),
        })
    }
}

#[derive(Deserialize)]
struct RawDependency {
    name: String,
    req: String,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    optional: bool,
    #[serde(default = "yes")]
    default_features: bool,
    #[serde(default)]
    target: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    package: Option<String>,
}

/// Default features are on where the line does not say (lines of cargo 1.84 and later may omit the field).
fn yes() -> bool {
    true
}

impl RawDependency {
    fn into_dependency(self) -> IndexDependency {
        IndexDependency {
            crate_name: self.package.unwrap_or(self.name),
            req: self.req,
            features: self.features,
            optional: self.optional,
            default_features: self.default_features,
            target: self.target,
            // Cargo takes every kind that it does not know for a normal one.
            kind: match self.kind.as_deref() {
                Some("dev") => "dev",
                Some("build") => "build",
                _ => "normal",
            },
        }
    }
}

/// The fields that every format is sure to keep.
#[derive(Deserialize)]
struct RawFutureLine {
    name: String,
    vers: String,
    cksum: String,
    #[serde(default)]
    yanked: Option<bool>,
    v: u32,
}

impl RawFutureLine {
    fn into_line(self) -> Option<IndexLine> {
        RawLine {
            name: self.name,
            vers: self.vers,
            deps: Vec::new(),
            cksum: self.cksum,
            features: Features::new(),
            features2: None,
            yanked: self.yanked,
            links: None,
            rust_version: None,
            pubtime: None,
        }
        .into_line()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_a_full_line() {
        let line = IndexLine::parse(
            br#"{"name":"Foo","vers":"1.0.0","deps":[{"name":"alias","req":"^1","package":"real","kind":"dev","optional":true}],"cksum":"00","features":{"a":["b"]},"features2":{"a":["dep:real"],"c":[]},"yanked":null,"links":"z","rust_version":"1.60","pubtime":"2020-01-02T03:04:05Z","v":2,"unknown":7}"#,
        )
        .unwrap();
        assert_eq!(line.name.as_str(), "Foo");
        assert!(!line.yanked);
        assert_eq!(line.features["a"], ["b", "dep:real"]);
        assert!(line.features["c"].is_empty());
        let [dependency] = line.dependencies.as_slice() else {
            panic!()
        };
        assert_eq!(
            (dependency.crate_name.as_str(), dependency.kind),
            ("real", "dev")
        );
        assert!(dependency.optional && dependency.default_features && dependency.target.is_none());
        assert!(line.checksum().is_none(), "two digits are no checksum");
    }

    #[test]
    fn skips_junk_and_keeps_versions_of_future_formats() {
        for junk in [
            "",
            "\r",
            "not json",
            "{}",
            "[1,2]",
            r#"{"name":"a","vers":"1.0","deps":[],"cksum":""}"#,
            r#"{"name":"a/b","vers":"1.0.0","deps":[],"cksum":""}"#,
            r#"{"name":"a","vers":"1.0.0","deps":{},"cksum":""}"#,
            r#"{"name":"a","vers":"1.0.0","deps":[],"cksum":"","pubtime":"yesterday"}"#,
            r#"{"name":"a","vers":"1.0.0","deps":{},"cksum":"","v":2}"#,
        ] {
            assert!(IndexLine::parse(junk.as_bytes()).is_none(), "{junk}");
        }
        let future = r#"{"name":"a","vers":"2.0.0","deps":{"new":"shape"},"cksum":"ab","yanked":true,"v":9}"#;
        let line = IndexLine::parse(future.as_bytes()).unwrap();
        assert_eq!(
            (line.version.as_str(), line.cksum.as_str(), line.yanked),
            ("2.0.0", "ab", true)
        );
    }

    #[test]
    fn a_dependency_of_an_unknown_kind_is_a_normal_one() {
        for (kind, expected) in [
            ("null", "normal"),
            ("\"build\"", "build"),
            ("\"peer\"", "normal"),
        ] {
            let text = format!(
                r#"{{"name":"a","vers":"1.0.0","cksum":"","deps":[{{"name":"b","req":"*","kind":{kind}}}]}}"#
            );
            assert_eq!(
                IndexLine::parse(text.as_bytes()).unwrap().dependencies[0].kind,
                expected
            );
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(IndexLine::parse(&bytes));
        }
    }
}
