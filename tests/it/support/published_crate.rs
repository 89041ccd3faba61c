//! Crates as crates.io has them: dependencies of this project, from the cargo home that it was built with.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use semver::{Version, VersionReq};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{CrateFile, FIXTURES, fixture};

/// A version that this project depends on: its file, and the index file of the crate.
pub(crate) struct PublishedCrate {
    pub(crate) file: CrateFile,
    /// Real lines if the fixtures have some. There is always a line for the version.
    pub(crate) index_file: Vec<u8>,
}

#[derive(Deserialize)]
struct LockFile {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

impl PublishedCrate {
    /// These crates and all their dependencies, in the versions of this project's lock file.
    pub(crate) fn with_dependencies(names: &[&str]) -> Vec<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
        let lock: LockFile = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        // A lock file names a package without the version if there is only one version of it.
        let mut packages = HashMap::new();
        for package in &lock.package {
            packages.insert(package.name.clone(), package);
            packages.insert(format!("{} {}", package.name, package.version), package);
        }
        let mut found: Vec<&Locked> = Vec::new();
        let mut wanted: Vec<&str> = names.to_vec();
        while let Some(name) = wanted.pop() {
            let package = packages[name];
            let is_new = !found.iter().any(|other| std::ptr::eq(*other, package));
            if is_new {
                found.push(package);
                wanted.extend(package.dependencies.iter().map(String::as_str));
            }
        }
        found.into_iter().map(Self::of).collect()
    }

    fn of(locked: &Locked) -> Self {
        // Names have to live as long as the tests.
        let (name, version): (&str, &str) =
            (locked.name.clone().leak(), locked.version.clone().leak());
        let bytes = downloaded(&format!("{name}-{version}.crate"));
        let manifest = manifest(&bytes, &format!("{name}-{version}/Cargo.toml"));
        let file = CrateFile::published(name, version, bytes);
        assert_eq!(Some(file.checksum()), locked.checksum, "{name} {version}");
        let mut index_file = real_lines(name);
        if real_line(&index_file, version).is_none() {
            let line = index_line(&manifest, &file.checksum());
            index_file.extend(format!("{line}\n").into_bytes());
        }
        Self { file, index_file }
    }

    /// The line of the version.
    pub(crate) fn line(&self) -> Value {
        real_line(&self.index_file, self.file.version).unwrap()
    }

    /// The index file of the crate with one more version, whose file does not exist.
    pub(crate) fn index_file_with_successor(&self) -> Vec<u8> {
        let mut line = self.line();
        let mut version: Version = self.file.version.parse().unwrap();
        version.patch += 1;
        line["vers"] = json!(version.to_string());
        line["cksum"] = json!("5".repeat(64));
        let mut index_file = self.index_file.clone();
        index_file.extend(format!("{line}\n").into_bytes());
        index_file
    }
}

/// A file that cargo has downloaded to build this project.
fn downloaded(name: &str) -> Vec<u8> {
    let caches = cargo_home().join("registry/cache");
    let registries = std::fs::read_dir(&caches).into_iter().flatten().flatten();
    let mut files = registries.map(|registry| registry.path().join(name));
    match files.find(|file| file.is_file()) {
        Some(file) => std::fs::read(file).unwrap(),
        None => panic!(
            "no registry in {} has {name}, which this project is built of: run `cargo fetch --locked`",
            caches.display()
        ),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the machine decides where cargo keeps its downloads"
)]
fn cargo_home() -> PathBuf {
    std::env::var_os("CARGO_HOME").map_or_else(
        || std::env::home_dir().unwrap().join(".cargo"),
        PathBuf::from,
    )
}

fn manifest(crate_file: &[u8], path: &str) -> Value {
    let mut archive = tar::Archive::new(GzDecoder::new(crate_file));
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries
        .find(|entry| entry.path().unwrap() == Path::new(path))
        .unwrap();
    let mut text = String::new();
    entry.read_to_string(&mut text).unwrap();
    toml::from_str(&text).unwrap()
}

/// The lines of a crate's index file in the fixtures: all, the last ones, or none.
fn real_lines(name: &str) -> Vec<u8> {
    if FIXTURES.contains(&name) {
        return fixture(name);
    }
    let ends = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/index_ends");
    std::fs::read(ends.join(name)).unwrap_or_default()
}

fn real_line(index_file: &[u8], version: &str) -> Option<Value> {
    let mut lines = index_file
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap());
    lines.find(|line: &Value| line["vers"] == version)
}

/// The line that crates.io would make of a manifest, if there is no real one.
fn index_line(manifest: &Value, checksum: &str) -> Value {
    let package = &manifest["package"];
    let mut dependencies = dependencies(manifest, &Value::Null);
    for (target, tables) in entries(&manifest["target"]) {
        dependencies.extend(self::dependencies(tables, &json!(target)));
    }
    // Old versions of cargo do not understand these features, so they have a field of their own.
    let is_new_syntax = |feature: &Value| {
        let mut items = feature.as_array().unwrap().iter();
        items.any(|item| {
            item.as_str().unwrap().contains("dep:") || item.as_str().unwrap().contains("?/")
        })
    };
    let (new, old): (Map<String, Value>, Map<String, Value>) = entries(&manifest["features"])
        .map(|(name, items)| (name.clone(), items.clone()))
        .partition(|(_, items)| is_new_syntax(items));
    let mut line = json!({
        "name": package["name"], "vers": package["version"], "deps": dependencies, "cksum": checksum,
        "features": old, "yanked": false,
    });
    if !new.is_empty() {
        line["features2"] = Value::Object(new);
        line["v"] = json!(2);
    }
    for (key, value) in [("links", "links"), ("rust_version", "rust-version")] {
        if let Some(value) = package.get(value) {
            line[key] = value.clone();
        }
    }
    line
}

/// The dependencies of a manifest, or of its tables for one target.
fn dependencies(tables: &Value, target: &Value) -> Vec<Value> {
    let kinds = [
        ("normal", "dependencies"),
        ("build", "build-dependencies"),
        ("dev", "dev-dependencies"),
    ];
    let of_kind = |(kind, table): (&'static str, &'static str)| {
        entries(&tables[table]).map(move |(name, dependency)| {
            let requirement: VersionReq = dependency["version"].as_str().unwrap().parse().unwrap();
            let or = |key: &str, default: Value| dependency.get(key).cloned().unwrap_or(default);
            let mut line = json!({
                "name": name, "req": requirement.to_string(), "features": or("features", json!([])),
                "optional": or("optional", json!(false)),
                "default_features": or("default-features", json!(true)), "target": target, "kind": kind,
            });
            if let Some(package) = dependency.get("package") {
                line["package"] = package.clone();
            }
            line
        })
    };
    kinds.into_iter().flat_map(of_kind).collect()
}

fn entries(table: &Value) -> impl Iterator<Item = (&String, &Value)> {
    table.as_object().into_iter().flatten()
}

#[test]
fn a_line_from_a_manifest_is_like_the_real_one() {
    let mut compared = 0;
    for published in PublishedCrate::with_dependencies(&["serde_derive"]) {
        let (file, mut real) = (&published.file, published.line());
        let path = format!("{}-{}/Cargo.toml", file.name, file.version);
        let mut made = index_line(&manifest(&file.bytes(), &path), &file.checksum());
        for line in [&mut real, &mut made] {
            // The manifest has no publish time, and another order of the dependencies.
            line.as_object_mut().unwrap().remove("pubtime");
            let dependencies = line["deps"].as_array_mut().unwrap();
            dependencies.sort_by_key(Value::to_string);
        }
        assert_eq!(made, real);
        compared += usize::from(!real_lines(file.name).is_empty());
    }
    assert!(compared > 0);
}
