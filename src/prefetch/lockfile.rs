//! Reading the packages of registries from a `Cargo.lock`, versions 1 to 4.

use std::collections::HashMap;

use serde::Deserialize;

use crate::package::{Checksum, CrateName, CrateVersion};

/// The newest known version of the format.
const KNOWN_VERSION: u32 = 4;

/// The source that cargo writes for crates.io, whichever mirror and protocol replace it.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The known names of this mirror's registry in lock files.
#[derive(Clone, Debug)]
pub(crate) struct OwnSources(Vec<String>);

impl OwnSources {
    /// The names for a mirror at `public_url` with the index of `upstream`.
    pub(crate) fn new(public_url: Option<&str>, upstream: &str) -> Self {
        let mut sources = vec![CRATES_IO.to_owned(), format!("registry+{upstream}")];
        if let Some(base) = public_url {
            sources.push(format!("sparse+{base}/index"));
            sources.push(format!("registry+{base}/git/index"));
        }
        Self(sources)
    }

    fn have(&self, source: &str) -> bool {
        self.0.iter().any(|own| bare(own) == bare(source))
    }
}

impl Default for OwnSources {
    fn default() -> Self {
        Self(vec![CRATES_IO.to_owned()])
    }
}

/// The source without a slash or `.git` at its end, which make no difference.
fn bare(source: &str) -> &str {
    let source = source.trim_end_matches('/');
    source.strip_suffix(".git").unwrap_or(source)
}

/// A package of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LockedPackage {
    /// Its name.
    pub(crate) name: CrateName,
    /// Its version.
    pub(crate) version: CrateVersion,
    /// The checksum that cargo will compare; old lock files may lack it.
    pub(crate) checksum: Option<Checksum>,
    /// Its registry.
    pub(crate) registry: Registry,
}

/// Whether a package is from the registry of this mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registry {
    /// It is.
    Own,
    /// The name of the registry is unknown. The checksums decide.
    Unknown,
}

/// Why a text is no lock file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockfileError {
    #[error("it is not a Cargo.lock: {0}")]
    Shape(String),
    #[error("it has version {0}, and versions up to {KNOWN_VERSION} are known here")]
    TooNew(u32),
    #[error("the package `{name} {version}` has a bad {what}")]
    Package {
        name: String,
        version: String,
        what: &'static str,
    },
}

/// Reads a lock file. Packages from paths and from git are ignored, because no registry has them.
pub(crate) fn parse_lockfile(
    text: &str,
    own: &OwnSources,
) -> Result<Vec<LockedPackage>, LockfileError> {
    let raw: RawLockfile = toml::from_str(text).map_err(|error| {
        // Its display form has several lines. The message alone has one.
        LockfileError::Shape(error.message().to_owned())
    })?;
    if let Some(version) = raw.version.filter(|version| *version > KNOWN_VERSION) {
        return Err(LockfileError::TooNew(version));
    }
    let mut packages = Vec::new();
    for package in &raw.package {
        let source = package.source.as_deref().unwrap_or_default();
        if source.starts_with("registry+") || source.starts_with("sparse+") {
            packages.push(package.locked(source, &raw.metadata, own)?);
        }
    }
    Ok(packages)
}

#[derive(Deserialize)]
struct RawLockfile {
    version: Option<u32>,
    #[serde(default)]
    package: Vec<RawPackage>,
    /// Contains the checksums in version 1, among other things.
    #[serde(default)]
    metadata: HashMap<String, toml::Value>,
}

#[derive(Deserialize)]
struct RawPackage {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

impl RawPackage {
    fn locked(
        &self,
        source: &str,
        metadata: &HashMap<String, toml::Value>,
        own: &OwnSources,
    ) -> Result<LockedPackage, LockfileError> {
        let Self { name, version, .. } = self;
        let bad = |what| LockfileError::Package {
            name: name.clone(),
            version: version.clone(),
            what,
        };
        let checksum = self.checksum.as_deref().or_else(|| {
            let key = format!("checksum {name} {version} ({source})");
            let text = metadata.get(&key)?.as_str()?;
            // Version 1 writes this for an unknown checksum.
            (text != "<none>").then_some(text)
        });
        let checksum = checksum.map(str::parse).transpose();
        Ok(LockedPackage {
            name: CrateName::try_from(name.clone()).map_err(|_why| bad("name"))?,
            version: CrateVersion::try_from(version.clone()).map_err(|_why| bad("version"))?,
            checksum: checksum.map_err(|_why| bad("checksum"))?,
            registry: match own.have(source) {
                true => Registry::Own,
                false => Registry::Unknown,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn shown(text: &str) -> Vec<String> {
        let packages = parse_lockfile(text, &OwnSources::default()).unwrap();
        let show = |package: LockedPackage| {
            let checksum = package.checksum.map(|checksum| checksum.to_string());
            let checked = if checksum.as_deref() == Some(HEX) {
                "checked"
            } else {
                "unchecked"
            };
            format!(
                "{} {} {:?} {checked}",
                package.name, package.version, package.registry
            )
        };
        packages.into_iter().map(show).collect()
    }

    #[test]
    fn lock_files_of_versions_2_to_4_are_read() {
        for head in ["", "version = 3\n", "version = 4\n"] {
            let text = format!(
                r#"{head}
[[package]]
name = "ours"
version = "0.1.0"
dependencies = ["serde 1.0.0", "tool"]

[[package]]
name = "serde"
version = "1.0.0"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "{HEX}"

[[package]]
name = "tool"
version = "2.0.0+x"
source = "git+https://git.example/tool?branch=main#0123456789"

[[package]]
name = "private"
version = "3.0.0"
source = "sparse+https://mirror.example/index/"
checksum = "{HEX}"

[[patch.unused]]
name = "never"
version = "1.0.0"

[metadata]
"anything" = {{ of = "others" }}
"#
            );
            assert_eq!(
                shown(&text),
                ["serde 1.0.0 Own checked", "private 3.0.0 Unknown checked"]
            );
        }
    }

    #[test]
    fn a_lock_file_of_version_1_has_its_checksums_in_the_metadata() {
        let text = format!(
            r#"[root]
name = "ours"
version = "0.1.0"
dependencies = ["libc 0.2.0 (registry+https://github.com/rust-lang/crates.io-index)"]

[[package]]
name = "libc"
version = "0.2.0"
source = "registry+https://github.com/rust-lang/crates.io-index"

[[package]]
name = "log"
version = "0.3.0"
source = "registry+https://github.com/rust-lang/crates.io-index"

[metadata]
"checksum libc 0.2.0 (registry+https://github.com/rust-lang/crates.io-index)" = "{HEX}"
"checksum log 0.3.0 (registry+https://github.com/rust-lang/crates.io-index)" = "<none>"
"#
        );
        assert_eq!(
            shown(&text),
            ["libc 0.2.0 Own checked", "log 0.3.0 Own unchecked"]
        );
    }

    #[test]
    fn the_own_registry_has_several_names() {
        let own = OwnSources::new(Some("https://mirror.example"), "https://git.example/i.git");
        for source in [
            CRATES_IO,
            "registry+https://github.com/rust-lang/crates.io-index.git",
            "registry+https://git.example/i",
            "sparse+https://mirror.example/index/",
            "registry+https://mirror.example/git/index",
        ] {
            assert!(own.have(source), "{source}");
        }
        for source in [
            "sparse+https://other.example/index/",
            "registry+https://mirror.example/git/index/more",
        ] {
            assert!(!own.have(source), "{source}");
        }
    }

    #[test]
    fn the_lock_file_of_this_project_is_read() {
        let text = include_str!("../../Cargo.lock");
        let packages = parse_lockfile(text, &OwnSources::default()).unwrap();
        assert_eq!(packages.len() + 1, text.matches("[[package]]").count());
        assert!(
            packages
                .iter()
                .all(|package| package.checksum.is_some() && package.registry == Registry::Own)
        );
    }

    #[test]
    fn an_error_is_one_line_about_the_first_bad_field() {
        let package =
            |rest: &str| format!("[[package]]\nsource = \"registry+https://a.example\"\n{rest}");
        for (text, words) in [
            ("no toml".to_owned(), "not a Cargo.lock"),
            ("package = 7".to_owned(), "not a Cargo.lock"),
            ("version = 5".to_owned(), "version 5"),
            (package("name = \"a\""), "version"),
            (package("name = \"a/b\"\nversion = \"1.0.0\""), "a bad name"),
            (
                package("name = \"a\"\nversion = \"1\""),
                "`a 1` has a bad version",
            ),
            (
                package("name = \"a\"\nversion = \"1.0.0\"\nchecksum = \"12\""),
                "a bad checksum",
            ),
        ] {
            let error = parse_lockfile(&text, &OwnSources::default())
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
