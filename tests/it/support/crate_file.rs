//! A real `.crate` file, which the test packs.

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::content::Content;

/// A packed crate, with the data for its index line.
pub(crate) struct CrateFile {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) content: Content,
    /// The SHA-256, as the index writes it.
    checksum: String,
    dependencies: Vec<&'static str>,
}

impl CrateFile {
    /// Packs a library that depends on version 1 of other crates, and uses them.
    pub(crate) fn pack(
        name: &'static str,
        version: &'static str,
        dependencies: &[&'static str],
    ) -> Self {
        let mut manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2021\"\n\n[dependencies]\n"
        );
        let mut source = "pub fn count() -> u32 {\n    1".to_owned();
        for dependency in dependencies {
            manifest.push_str(&format!("{dependency} = \"1\"\n"));
            source.push_str(&format!(" + {}::count()", dependency.replace('-', "_")));
        }
        source.push_str("\n}\n");
        let files = [("Cargo.toml", manifest), ("src/lib.rs", source)];
        Self::archive(name, version, files, dependencies)
    }

    /// Packs a program that prints its name.
    pub(crate) fn pack_program(name: &'static str, version: &'static str) -> Self {
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2021\"\n\n[profile.release]\nopt-level = 0\n"
        );
        let source = format!("fn main() {{\n    println!(\"{name}\");\n}}\n");
        let files = [("Cargo.toml", manifest), ("src/main.rs", source)];
        Self::archive(name, version, files, &[])
    }

    fn archive(
        name: &'static str,
        version: &'static str,
        files: [(&str, String); 2],
        dependencies: &[&'static str],
    ) -> Self {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            let path = format!("{name}-{version}/{path}");
            archive
                .append_data(&mut header, path, content.as_bytes())
                .unwrap();
        }
        let content = Content::Given(archive.into_inner().unwrap().finish().unwrap());
        Self::holding(name, version, content, dependencies)
    }

    /// A published file. Its index line comes from elsewhere.
    pub(crate) fn published(name: &'static str, version: &'static str, bytes: Vec<u8>) -> Self {
        Self::holding(name, version, Content::Given(bytes), &[])
    }

    fn holding(
        name: &'static str,
        version: &'static str,
        content: Content,
        dependencies: &[&'static str],
    ) -> Self {
        Self {
            name,
            version,
            checksum: content.checksum(),
            content,
            dependencies: dependencies.to_vec(),
        }
    }

    /// Version 1.0.0 of one of many small libraries.
    pub(crate) fn numbered(number: usize) -> Self {
        // Names have to live as long as the tests.
        Self::pack(format!("kept-{number:03}").leak(), "1.0.0", &[])
    }

    /// A file of any size, which cannot be unpacked.
    pub(crate) fn noise(
        name: &'static str,
        version: &'static str,
        seed: u64,
        length: usize,
    ) -> Self {
        Self::holding(name, version, Content::Noise { seed, length }, &[])
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let length = self.content.length();
        self.content.write(0..length, &mut bytes).unwrap();
        bytes
    }

    /// The SHA-256, as the index writes it.
    pub(crate) fn checksum(&self) -> String {
        self.checksum.clone()
    }

    /// The line of this version in the index.
    pub(crate) fn index_line(&self) -> Vec<u8> {
        let dependencies: Vec<Value> = self
            .dependencies
            .iter()
            .map(|name| {
                json!({
                    "name": name, "req": "^1", "features": [], "optional": false,
                    "default_features": true, "target": null, "kind": "normal",
                })
            })
            .collect();
        let line = json!({
            "name": self.name, "vers": self.version, "deps": dependencies,
            "cksum": self.checksum(), "features": {}, "yanked": false,
        });
        format!("{line}\n").into_bytes()
    }

    /// The path of the file in a mirror.
    pub(crate) fn download_path(&self) -> String {
        format!("/api/v1/crates/{}/{}/download", self.name, self.version)
    }

    /// The path of the file on a server with the layout of crates.io.
    pub(crate) fn path(&self) -> String {
        let version = self.version.replace('+', "%2B");
        format!("/crates/{0}/{0}-{version}.crate", self.name)
    }
}
