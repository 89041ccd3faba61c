//! Policy files and advisory databases for the tests of this module and of `index`.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use super::advisories::{Advisories, AdvisoryReader};
use super::file::PolicyFile;
use super::settings::{HeldDownloads, Mode, Settings, UnknownAge};
use crate::package::Timestamp;

pub(crate) const MINUTE: i64 = 60;
pub(crate) const DAY: i64 = 86_400;

/// 2026-08-20T00:00:00Z.
pub(crate) const NOW: i64 = 1_787_184_000;

/// The crates, each in two spellings, with versions to write in requirements.
pub(crate) const CRATES: [([&str; 2], [&str; 3]); 7] = [
    (["fnv", "FNV"], ["1.0.2", "1.0.3", "1.0.7"]),
    (["hex", "Hex"], ["0.2.0", "0.3.2", "0.4.3"]),
    (["cfg-if", "Cfg_If"], ["0.1.2", "0.1.10", "1.0.0"]),
    (["matches", "MATCHES"], ["0.1.2", "0.1.8", "0.1.10"]),
    (
        ["rand_core", "Rand-Core"],
        ["0.2.1", "0.9.0-alpha.1", "0.6.4"],
    ),
    (
        ["foreign-types-shared", "foreign_types_shared"],
        ["0.1.0", "0.2.0", "0.3.1"],
    ),
    (
        ["serde_core", "serde-core"],
        ["1.0.220", "1.0.221", "1.0.225"],
    ),
];

/// The ids of the advisories.
const IDS: [&str; 6] = [
    "RUSTSEC-2026-0001",
    "RUSTSEC-2026-0002",
    "RUSTSEC-2026-0003",
    "RUSTSEC-2026-0004",
    "RUSTSEC-2026-0005",
    "RUSTSEC-2026-0006",
];

pub(crate) fn time(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds).unwrap()
}

/// Many different policy files, the same in each run. The first one is empty.
pub(crate) fn policy_files() -> &'static [Arc<PolicyFile>] {
    static FILES: LazyLock<Vec<Arc<PolicyFile>>> = LazyLock::new(|| {
        let mut random = fastrand::Rng::with_seed(14);
        let mut texts = vec![String::new()];
        for _ in 0..150 {
            let text = policy_file(&mut random);
            // Files that differ in one entry are neighbours.
            texts.push(text.replacen("deny = [", "deny = [\"fnv\", ", 1));
            texts.push(text.replace("2026-08", "2026-09"));
            texts.push(text);
        }
        let parse = |text: &String| {
            Arc::new(PolicyFile::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}")))
        };
        texts.iter().map(parse).collect()
    });
    &FILES
}

fn crate_with(random: &mut fastrand::Rng) -> (&'static str, &'static str) {
    let (names, versions) = &CRATES[random.usize(..CRATES.len())];
    (names[random.usize(..2)], versions[random.usize(..3)])
}

fn spec(random: &mut fastrand::Rng, may_have_star: bool) -> String {
    let (name, version) = crate_with(random);
    match random.u8(..6) {
        0 => format!("{name}@{version}"),
        1 => format!("{name}:<={version}"),
        2 => format!("{name}:>={version}"),
        3 if may_have_star => format!("{}*", name.get(..random.usize(..name.len())).unwrap()),
        _ => name.to_owned(),
    }
}

fn list(
    random: &mut fastrand::Rng,
    most: usize,
    entry: impl Fn(&mut fastrand::Rng) -> String,
) -> String {
    let entries: Vec<String> = (0..random.usize(..=most)).map(|_| entry(random)).collect();
    format!("[{}]", entries.join(", "))
}

fn policy_file(random: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    let deny = list(random, 2, |random| {
        let spec = spec(random, false);
        match random.u8(..3) {
            0 => format!(
                "{{ crate = \"{spec}\", reason = \"SEC-{}\" }}",
                random.u8(..3)
            ),
            1 => format!("{{ crate = \"{spec}\", use-instead = \"other\" }}"),
            _ => format!("\"{spec}\""),
        }
    });
    writeln!(text, "[bans]\ndeny = {deny}").unwrap();
    if random.u8(..4) == 0 {
        let allow = list(random, 9, |random| format!("\"{}\"", spec(random, false)));
        writeln!(text, "allow = {allow}").unwrap();
    }
    let ignore = list(random, 2, |random| {
        format!("\"{}\"", IDS[random.usize(..IDS.len())])
    });
    writeln!(text, "[advisories]\nignore = {ignore}").unwrap();
    let exempt = list(random, 3, |random| {
        let (spec, expires) = (spec(random, true), random.i64(-2 * DAY..9 * DAY));
        // Not in whole minutes, as policy time is.
        match random.u8(..3) {
            0 => format!("\"{spec}\""),
            _ => format!(
                "{{ crate = \"{spec}\", expires = {} }}",
                time(NOW + expires)
            ),
        }
    });
    let age = list(random, 3, |random| {
        let ages = ["0", "2 days", "14 days", "1 hour"];
        let age = ages[random.usize(..ages.len())];
        format!(
            "{{ crate = \"{}\", min-publish-age = \"{age}\" }}",
            spec(random, true)
        )
    });
    writeln!(text, "[mirror]\nexempt = {exempt}\nage = {age}").unwrap();
    text
}

/// Many different advisory databases, the same in each run. The first one is empty.
pub(crate) fn databases() -> &'static [Arc<Advisories>] {
    static DATABASES: LazyLock<Vec<Arc<Advisories>>> = LazyLock::new(|| {
        let mut random = fastrand::Rng::with_seed(14);
        let mut databases = vec![AdvisoryReader::default().finish(commit(0))];
        for number in 1..60 {
            let mut reader = AdvisoryReader::default();
            for id in IDS {
                if random.u8(..3) == 0 {
                    continue;
                }
                let file = advisory(&mut random, id);
                let skipped = reader.add(file.as_bytes()).unwrap();
                assert_eq!(skipped, None, "{file}");
            }
            databases.push(reader.finish(commit(number)));
        }
        databases.into_iter().map(Arc::new).collect()
    });
    &DATABASES
}

fn commit(number: usize) -> String {
    format!("{number:040x}")
}

fn advisory(random: &mut fastrand::Rng, id: &str) -> String {
    let (name, version) = crate_with(random);
    let kind = match random.u8(..6) {
        0 => "categories = [\"malicious\"]",
        1 => "expect-deleted = true",
        2 => "informational = \"unmaintained\"",
        3 => "withdrawn = \"2026-08-21\"",
        _ => "",
    };
    let versions = match random.u8(..4) {
        0 => "patched = []".to_owned(),
        1 => format!("patched = [\"> {version}\"]\nunaffected = [\"< {version}\"]"),
        _ => format!("patched = [\">= {version}\"]"),
    };
    format!(
        "```toml\n[advisory]\nid = \"{id}\"\npackage = \"{name}\"\ndate = \"2026-08-19\"\n{kind}\n\
         [versions]\n{versions}\n```\n\n# A title\n\nA description.\n"
    )
}

/// A minimum publish age of a week and a guard of three days.
pub(crate) fn settings() -> Settings {
    Settings {
        min_age: "7 days".parse().unwrap(),
        unknown_age: UnknownAge::Allow,
        held_downloads: HeldDownloads::Allow,
        mode: Mode::Enforce,
        yank_guard: "3 days".parse().unwrap(),
    }
}
