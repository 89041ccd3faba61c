//! One line of an index file: one version of a crate.
//!
//! Lines are read by the rules of cargo (its book, "Index format", and its source). Index files are relayed byte for byte;
//! parsed lines are for look-ups only.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Checksum, CrateName, CrateVersion, Timestamp};

/// The newest index line format with only known fields. A line with a higher `v` may have fields of other shapes, but
/// still names a version.
const KNOWN_FORMAT: u32 = 2;

/// One version of a crate in the index. Large fields borrow from the index file. Fields of a line that are not here are
/// ignored, as in cargo.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct IndexLine<'a> {
    /// The crate's name as published.
    pub(crate) name: CrateName,
    /// The version.
    #[serde(rename = "vers")]
    pub(crate) version: CrateVersion,
    /// The SHA-256 of the crate file, as written. [`IndexLine::checksum`] returns it as a checked value.
    pub(crate) cksum: String,
    /// Whether the version was yanked.
    #[serde(default, deserialize_with = "true_or_not")]
    pub(crate) yanked: bool,
    #[serde(borrow, default, deserialize_with = "features")]
    features: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "features")]
    features2: Option<&'a RawValue>,
    /// The native library that the crate links.
    pub(crate) links: Option<String>,
    /// The oldest Rust that the version builds with.
    pub(crate) rust_version: Option<String>,
    /// When the version was published; absent on lines that crates.io has not touched since 2026.
    pub(crate) pubtime: Option<Timestamp>,
    /// The dependencies in the order of the line.
    #[serde(rename = "deps")]
    pub(crate) dependencies: Vec<IndexDependency>,
}

/// A dependency as an index line lists it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct IndexDependency {
    name: String,
    package: Option<String>,
    #[serde(default, deserialize_with = "kind")]
    kind: Kind,
    /// The version requirement.
    pub(crate) req: String,
    /// The features asked for, empty strings of old lines included.
    #[serde(default)]
    pub(crate) features: Vec<String>,
    /// Whether a feature must turn it on.
    #[serde(default)]
    pub(crate) optional: bool,
    /// Whether its default features are on. Lines of cargo 1.84 and later may omit the field.
    #[serde(default = "yes")]
    pub(crate) default_features: bool,
    /// A `cfg(…)` or target triple that it is limited to.
    pub(crate) target: Option<String>,
    /// The index of another registry that the crate is in; `None` for one in this index.
    pub(crate) registry: Option<String>,
}

impl IndexDependency {
    /// The real name of the crate depended on, not the alias that the dependent renamed it to.
    pub(crate) fn crate_name(&self) -> &str {
        self.package.as_ref().unwrap_or(&self.name)
    }

    /// `normal`, `build` or `dev`.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind.0
    }
}

/// The kind of a dependency. A history has many: none keeps a text of its own.
#[derive(Clone, Copy, Debug)]
struct Kind(&'static str);

impl Default for Kind {
    fn default() -> Self {
        Self("normal")
    }
}

fn kind<'de, D: Deserializer<'de>>(value: D) -> Result<Kind, D::Error> {
    let text: Option<String> = Deserialize::deserialize(value)?;
    Ok(match text.as_deref() {
        Some("dev") => Kind("dev"),
        Some("build") => Kind("build"),
        // Cargo takes every kind that it does not know for a normal one.
        _ => Kind::default(),
    })
}

fn yes() -> bool {
    true
}

/// Null means `false`.
fn true_or_not<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// An object of lists of strings. Null means nothing.
fn features<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    let text: Option<&RawValue> = Deserialize::deserialize(value)?;
    if let Some(text) = text {
        serde_json::from_str::<FeatureShape>(text.get()).map_err(Error::custom)?;
    }
    Ok(text)
}

/// Feature names and what each turns on, as JSON: `features` and `features2`, merged.
///
/// They stay text, and are parsed only to be merged, because the features of one crate can fill megabytes.
///
/// Invariant: both texts are objects of lists of strings.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Features<'a> {
    old_syntax: Option<&'a RawValue>,
    new_syntax: Option<&'a RawValue>,
}

impl Serialize for Features<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.old_syntax, self.new_syntax) {
            (None, None) => serializer.collect_map(std::iter::empty::<((), ())>()),
            (Some(text), None) | (None, Some(text)) => text.serialize(serializer),
            (Some(old_syntax), Some(new_syntax)) => {
                let read = |text: &RawValue| {
                    serde_json::from_str::<BTreeMap<String, Vec<String>>>(text.get())
                };
                // The invariant says that both can be read.
                let mut features = read(old_syntax).unwrap_or_default();
                for (name, more) in read(new_syntax).unwrap_or_default() {
                    features.entry(name).or_default().extend(more);
                }
                features.serialize(serializer)
            }
        }
    }
}

/// Accepts an object of lists of strings, and stores nothing of it.
struct FeatureShape;

impl<'de> Deserialize<'de> for FeatureShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for FeatureShape {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of lists of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        // A list of values without a size takes no memory.
        while map.next_entry::<Text, Vec<Text>>()?.is_some() {}
        Ok(self)
    }
}

/// Accepts a string, and does not store it.
struct Text;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Self)
    }
}

impl Visitor<'_> for Text {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_str<E>(self, _text: &str) -> Result<Self, E> {
        Ok(self)
    }
}

impl<'a> IndexLine<'a> {
    /// Reads one line. `None` for a line that cargo would skip or reject. Look-ups skip it, too.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        // serde also reads the fields from an array. For the rules that is no version.
        if !line.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        serde_json::from_slice(line).ok().or_else(|| {
            let future: FutureLine = serde_json::from_slice(line).ok()?;
            (future.v > KNOWN_FORMAT).then(|| future.into_line())
        })
    }

    /// The checksum, if the line has a real one.
    pub(crate) fn checksum(&self) -> Option<Checksum> {
        self.cksum.parse().ok()
    }

    /// What each feature turns on.
    pub(crate) fn features(&self) -> Features<'a> {
        Features {
            old_syntax: self.features,
            new_syntax: self.features2,
        }
    }
}

/// The fields that every format must have, and those that are read only if their shape is unchanged.
#[derive(Deserialize)]
struct FutureLine {
    name: CrateName,
    vers: CrateVersion,
    cksum: String,
    #[serde(default, deserialize_with = "true_or_not")]
    yanked: bool,
    #[serde(default)]
    links: Value,
    #[serde(default)]
    rust_version: Value,
    #[serde(default)]
    pubtime: Value,
    v: u32,
}

impl FutureLine {
    fn into_line<'a>(self) -> IndexLine<'a> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        IndexLine {
            name: self.name,
            version: self.vers,
            cksum: self.cksum,
            yanked: self.yanked,
            features: None,
            features2: None,
            links: text(&self.links),
            rust_version: text(&self.rust_version),
            pubtime: text(&self.pubtime).and_then(|time| Timestamp::try_from(time).ok()),
            dependencies: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_field_of_a_full_line_is_read() {
        let line = IndexLine::parse(
            br#"{"name":"Foo","vers":"1.0.0","deps":[{"name":"alias","req":"^1","package":"real","kind":"dev","optional":true}],"cksum":"00","features":{"a":["b"]},"features2":{"a":["dep:real"],"c":[]},"yanked":null,"links":"z","rust_version":"1.60","pubtime":"2020-01-02T03:04:05Z","v":2,"unknown":7}"#,
        )
        .unwrap();
        assert_eq!(line.name.as_str(), "Foo");
        assert!(!line.yanked);
        let features = serde_json::to_value(line.features()).unwrap();
        assert_eq!(
            features,
            serde_json::json!({ "a": ["b", "dep:real"], "c": [] })
        );
        let [dependency] = line.dependencies.as_slice() else {
            panic!()
        };
        assert_eq!(
            (dependency.crate_name(), dependency.kind()),
            ("real", "dev")
        );
        assert!(dependency.optional && dependency.default_features && dependency.target.is_none());
        assert!(line.checksum().is_none(), "two digits are no checksum");
    }

    #[test]
    fn a_dependency_names_its_registry_only_if_that_is_another_one() {
        for (registry, expected) in [
            ("null", None),
            (
                "\"https://other.example/index\"",
                Some("https://other.example/index"),
            ),
        ] {
            let text = format!(
                r#"{{"name":"a","vers":"1.0.0","cksum":"","deps":[{{"name":"b","req":"*","registry":{registry}}}]}}"#
            );
            let line = IndexLine::parse(text.as_bytes()).unwrap();
            assert_eq!(line.dependencies[0].registry.as_deref(), expected);
        }
    }

    #[test]
    fn junk_is_skipped_and_versions_of_future_formats_are_kept() {
        for junk in [
            "",
            "\r",
            "not json",
            "{}",
            "[1,2]",
            // Arrays of exactly the fields that a line has.
            r#"["a","1.0.0",[],"00"]"#,
            r#" ["a","1.0.0",[],"00",null,null,false,null,null,null]"#,
            r#"["a","1.0.0","00",false,null,null,null,9]"#,
            r#"{"name":"a","vers":"1.0","deps":[],"cksum":""}"#,
            r#"{"name":"a/b","vers":"1.0.0","deps":[],"cksum":""}"#,
            r#"{"name":"a","vers":"1.0.0","deps":{},"cksum":""}"#,
            r#"{"name":"a","vers":"1.0.0","deps":[],"cksum":"","pubtime":"yesterday"}"#,
            r#"{"name":"a","vers":"1.0.0","deps":{},"cksum":"","v":2}"#,
            r#"{"name":"a","vers":"1.0.0","deps":[],"cksum":"","features":{"a":"b"}}"#,
            r#"{"name":"a","vers":"1.0.0","deps":[],"cksum":"","features":{"a":[1]}}"#,
            r#"{"name":"a","vers":"1.0.0","deps":[],"cksum":"","features":[]}"#,
            r#"{"name":"a","vers":"1.0.0","deps":[],"cksum":"","features2":{"a":[null]}}"#,
        ] {
            assert!(IndexLine::parse(junk.as_bytes()).is_none(), "{junk}");
        }
        let future = r#"{"name":"a","vers":"2.0.0","deps":{"new":"shape"},"cksum":"ab","yanked":true,"pubtime":"2020-05-01T00:00:00Z","links":7,"v":9}"#;
        let line = IndexLine::parse(future.as_bytes()).unwrap();
        assert_eq!(
            (line.version.as_str(), line.cksum.as_str(), line.yanked),
            ("2.0.0", "ab", true)
        );
        assert!(line.pubtime.is_some() && line.links.is_none());
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
                IndexLine::parse(text.as_bytes()).unwrap().dependencies[0].kind(),
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
