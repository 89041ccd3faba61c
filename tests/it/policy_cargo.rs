//! Held and denied versions as a developer sees them: each command with real cargo, and every way to read the index.

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{CrateFile, CrateUpstream, GitIndex, Mirror, Project, eventually, succeeds};

const DAY: u64 = 86_400;

/// Nothing listens at this port. It is not a path, because an offline mirror fetches from a local path.
const NOWHERE: &str = "http://127.0.0.1:1/index.git";

/// A way in which cargo reads the mirror's index: its name, the index in cargo's configuration, and cargo's settings as
/// variables.
struct Way {
    name: &'static str,
    index: fn(&Mirror) -> String,
    settings: &'static [(&'static str, &'static str)],
}

const WAYS: [Way; 3] = [
    Way {
        name: "sparse",
        index: |mirror| format!("sparse+http://{}/index/", mirror.address),
        settings: &[],
    },
    Way {
        name: "git by libgit2",
        index: |mirror| format!("http://{}/git/index", mirror.address),
        settings: &[],
    },
    Way {
        name: "git by command line",
        index: |mirror| format!("http://{}/git/index", mirror.address),
        settings: &[("CARGO_NET_GIT_FETCH_WITH_CLI", "true")],
    },
];

/// In this index, versions 1.1.0 are held or denied. All others are allowed.
struct Scene {
    index: GitIndex,
    upstream: CrateUpstream,
    data: TempDir,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the mirror of these tests has the system's clock"
)]
fn days_ago(days: u64) -> String {
    let time = SystemTime::now() - Duration::from_secs(days * DAY);
    let time = chrono::DateTime::<chrono::Utc>::from(time);
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Scene {
    fn new() -> Self {
        let mut crates = vec![
            CrateFile::pack("another", "1.0.0", &[]),
            CrateFile::pack("held-only", "1.1.0", &[]),
            CrateFile::pack("denied-only", "1.1.0", &[]),
        ];
        for version in ["1.0.0", "1.1.0"] {
            crates.push(CrateFile::pack("held-lib", version, &[]));
            crates.push(CrateFile::pack("denied-lib", version, &[]));
            crates.push(CrateFile::pack_program("held-tool", version));
            crates.push(CrateFile::pack_program("denied-tool", version));
        }
        let index = GitIndex::empty();
        let mut commit = index.commit().file("config.json", b"{}");
        crates.sort_by_key(|file| file.name);
        for files in crates.chunk_by(|one, other| one.name == other.name) {
            let line = |file: &CrateFile| {
                let mut line: Value = serde_json::from_slice(&file.index_line()).unwrap();
                let is_young = file.name.starts_with("held") && file.version == "1.1.0";
                line["pubtime"] = days_ago(if is_young { 2 } else { 60 }).into();
                format!("{line}\n")
            };
            let content: String = files.iter().map(line).collect();
            commit = commit.crate_file(files[0].name, content.as_bytes());
        }
        commit.send();
        let data = TempDir::new().unwrap();
        let policy = "[bans]\ndeny = [\n\
             \x20   { crate = \"denied-lib@1.1.0\", reason = \"SEC-7\", use-instead = \"another\" },\n\
             \x20   \"denied-tool@1.1.0\",\n    \"denied-only\",\n]\n";
        fs::write(data.path().join("policy.toml"), policy).unwrap();
        Self {
            upstream: CrateUpstream::start(&crates),
            index,
            data,
        }
    }

    /// Starts a mirror with the policy, always on the same data directory.
    fn start(&self, settings: &[(&str, &str)]) -> Mirror {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        let (template, file) = (
            self.upstream.template(),
            path(self.data.path().join("policy.toml")),
        );
        let (index, data) = (path(self.index.path()), path(self.data.path().join("data")));
        let own = [
            ("GIT_REPO_URL", index.as_str()),
            ("DATA_DIR", &data),
            ("DOWNLOAD_URL", &template),
            ("MIN_PUBLISH_AGE", "7 days"),
            ("POLICY_FILE", &file),
        ];
        // Of several values, the last one counts.
        let mut all: Vec<(&str, &str)> = own.to_vec();
        all.retain(|(name, _)| !settings.iter().any(|(other, _)| other == name));
        all.extend(settings);
        let mirror = Mirror::start_public(&all);
        mirror.wait_until_ready();
        mirror
    }
}

/// A project, and the output of cargo in it.
struct Session {
    project: Project,
    address: String,
    said: Vec<(String, String)>,
}

impl Session {
    fn new(mirror: &Mirror, way: &Way) -> Self {
        Self {
            project: Project::with(
                &(way.index)(mirror),
                way.settings,
                "",
                "println!(\"{}\", held_lib::count() + denied_lib::count());",
            ),
            address: mirror.address.to_string(),
            said: Vec::new(),
        }
    }

    /// Runs cargo, and keeps its output without lines that differ between two runs.
    fn run(&mut self, command: &str) -> (Output, String) {
        let arguments: Vec<&str> = command.split(' ').collect();
        let output = self.project.cargo(&arguments);
        let said = String::from_utf8(output.stderr.clone()).unwrap();
        let root = self.project.lock_path();
        let root = root.ancestors().nth(2).unwrap().to_str().unwrap();
        let said = said.replace(root, "ROOT").replace(&self.address, "MIRROR");
        // Lines with the name of the index, its URL or a time differ.
        let differs = |line: &&str| {
            let line = line.trim_start();
            [
                "Updating ",
                "Downloading ",
                "Downloaded ",
                "Finished ",
                "From ",
                "* [new ref]",
            ]
            .iter()
            .any(|begin| line.starts_with(begin))
        };
        let mut lines: Vec<&str> = said.lines().filter(|line| !differs(line)).collect();
        // cargo finds crates in random order.
        if lines.iter().any(|line| line.contains("Compiling")) {
            lines.sort_unstable();
        }
        let text = lines.join("\n");
        self.said.push((command.to_owned(), text.clone()));
        (output, text)
    }

    /// Runs cargo, which must succeed.
    #[track_caller]
    fn does(&mut self, command: &str) -> String {
        let (output, said) = self.run(command);
        succeeds(&output);
        said
    }

    /// Runs cargo, which must fail. Its output must contain these words.
    #[track_caller]
    fn fails(&mut self, command: &str, words: &str) -> String {
        let (output, said) = self.run(command);
        assert!(!output.status.success(), "{command}: {said}");
        assert!(said.contains(words), "{command}: {said}");
        said
    }

    /// The locked versions of `held-lib` and `denied-lib`.
    fn locked(&self) -> [String; 2] {
        let lock: toml::Table = toml::from_str(&self.project.lock_file()).unwrap();
        let packages = lock["package"].as_array().unwrap();
        ["held-lib", "denied-lib"].map(|name| {
            let found = packages
                .iter()
                .find(|package| package["name"].as_str() == Some(name));
            found.unwrap()["version"].as_str().unwrap().to_owned()
        })
    }

    fn manifest(&self) -> PathBuf {
        self.project.lock_path().with_file_name("Cargo.toml")
    }
}

/// Checks the table of `docs/policy.md`, "What a developer sees". Returns the output of cargo.
fn the_table_holds(mirror: &Mirror, way: &Way) -> Vec<(String, String)> {
    let mut session = Session::new(mirror, way);
    // A new user gets the allowed version, without a message.
    let said = session.does("add held-lib denied-lib");
    assert!(
        said.contains("Adding held-lib v1.0.0 to dependencies"),
        "{said}"
    );
    assert!(
        said.contains("Adding denied-lib v1.0.0 to dependencies"),
        "{said}"
    );
    let said = session.does("generate-lockfile");
    assert_eq!(session.locked(), ["1.0.0", "1.0.0"]);
    assert!(
        !said.contains("yanked") && !said.contains("1.1.0"),
        "{said}"
    );
    let said = session.does("install --debug --root installed held-tool denied-tool");
    assert!(
        said.contains("Installed package `held-tool v1.0.0`"),
        "{said}"
    );
    assert!(
        said.contains("Installed package `denied-tool v1.0.0`"),
        "{said}"
    );
    assert!(
        !said.contains("yanked") && !said.contains("1.1.0"),
        "{said}"
    );

    // A user who asks for such a version gets an error.
    for state in ["held", "denied"] {
        session.fails(
            &format!("add {state}-lib@1.1.0"),
            &format!("the crate `{state}-lib@1.1.0` could not be found in registry index."),
        );
        session.fails(
            &format!("add {state}-only"),
            &format!("the crate `{state}-only` could not be found in registry index."),
        );
        session.fails(
            &format!("install --debug --root installed {state}-tool --version 1.1.0"),
            &format!("cannot install package `{state}-tool`, it has been yanked"),
        );
        let manifest = fs::read_to_string(session.manifest()).unwrap();
        let wants = manifest.replace(
            &format!("{state}-lib = \"1.0.0\""),
            &format!("{state}-lib = \"1.1\""),
        );
        assert_ne!(wants, manifest);
        fs::write(session.manifest(), wants).unwrap();
        session.fails("generate-lockfile", "version 1.1.0 is yanked");
        fs::write(session.manifest(), manifest).unwrap();
    }

    // Lock files with such a version.
    let said = session.does("update held-lib --precise 1.1.0");
    assert!(
        said.contains("warning: selected package `held-lib@1.1.0` was yanked"),
        "{said}"
    );
    assert_eq!(session.locked(), ["1.1.0", "1.0.0"]);
    session.project.empty_home();
    let said = session.does("fetch --locked");
    assert!(!said.contains("yanked"), "{said}");
    session.does("build --offline --locked");
    assert_eq!(session.project.program_says(), "2\n");
    let said = session.does("update denied-lib --precise 1.1.0");
    assert!(
        said.contains("warning: selected package `denied-lib@1.1.0` was yanked"),
        "{said}"
    );
    assert_eq!(session.locked(), ["1.1.0", "1.1.0"]);
    session.fails(
        "fetch --locked",
        "denied-lib 1.1.0 is blocked by this mirror: SEC-7. Use another instead.",
    );
    let lock = session.project.lock_file();
    session.does("add another");
    session.does("update another");
    assert_eq!(session.locked(), ["1.1.0", "1.1.0"]);
    assert!(session.project.lock_file().contains("name = \"another\""));
    session.does("update held-lib denied-lib");
    assert_eq!(session.locked(), ["1.0.0", "1.0.0"]);
    fs::write(session.project.lock_path(), lock).unwrap();
    session.does("update");
    assert_eq!(session.locked(), ["1.0.0", "1.0.0"]);
    session.said
}

#[test]
fn every_cargo_command_does_what_the_table_says() {
    let scene = Scene::new();
    let mirror = scene.start(&[("DOWNLOAD_MODE", "cache")]);
    let said = thread::scope(|scope| {
        let mirror = &mirror;
        let running = WAYS
            .each_ref()
            .map(|way| (way.name, scope.spawn(move || the_table_holds(mirror, way))));
        running.map(|(name, running)| (name, running.join().unwrap()))
    });
    let [(_, sparse), git @ ..] = said;
    for (command, text) in &sparse {
        println!("$ cargo {command}\n{text}\n");
    }
    for (name, said) in git {
        assert_eq!(said, sparse, "{name}");
    }
    let held = [
        "held-lib = \"1.0.0\"",
        "fn main() {\nprintln!(\"{}\", held_lib::count());\n}\n",
    ];
    let lock = {
        let mut session = with_lock(&mirror, held, "");
        session.does("generate-lockfile");
        session.does("update held-lib --precise 1.1.0");
        session.project.lock_file()
    };
    mirror.stop();

    // A mirror without a network serves its stored file.
    let mirror = scene.start(&[("DOWNLOAD_MODE", "offline"), ("GIT_REPO_URL", NOWHERE)]);
    let mut session = with_lock(&mirror, held, &lock);
    session.does("fetch --locked");
    session.does("build --locked --offline");
    assert_eq!(session.project.program_says(), "1\n");
    mirror.stop();

    let mirror = scene.start(&[("HELD_DOWNLOADS", "deny")]);
    let mut session = with_lock(&mirror, held, &lock);
    let said = session.fails("fetch --locked", "got 403");
    for words in [
        "held-lib 1.1.0 is held by this mirror until 20",
        " and the minimum publish age is 7 days. Use: cargo update held-lib --precise 1.0.0",
    ] {
        assert!(said.contains(words), "{said}");
    }
    // The advice in the error of the mirror.
    session.does("update held-lib --precise 1.0.0");
    session.does("build --locked");
    a_stored_copy_of_a_denied_version_builds(&scene, &mirror, &mut session);
    mirror.stop();

    audit_changes_nothing(&scene);
}

/// A file that is denied later still builds on machines that have it.
fn a_stored_copy_of_a_denied_version_builds(scene: &Scene, mirror: &Mirror, session: &mut Session) {
    let path = scene.data.path().join("policy.toml");
    let before = fs::read_to_string(&path).unwrap();
    fs::write(&path, "[bans]\ndeny = [\"held-lib@1.0.0\"]\n").unwrap();
    eventually("the policy file is in use", || {
        let report = mirror.get("/policy/held-lib/1.0.0").json();
        report["state"] == "denied"
    });
    session.does("build --locked");
    session.project.empty_home();
    session.fails(
        "fetch --locked",
        "held-lib 1.0.0 is blocked by this mirror: denied by the policy file",
    );
    fs::write(&path, before).unwrap();
}

/// A project with this dependency, this program and this lock file.
fn with_lock(mirror: &Mirror, [dependency, main]: [&str; 2], lock: &str) -> Session {
    let session = Session::new(mirror, &WAYS[0]);
    let manifest = fs::read_to_string(session.manifest()).unwrap();
    fs::write(session.manifest(), format!("{manifest}{dependency}\n")).unwrap();
    fs::write(session.manifest().with_file_name("src/main.rs"), main).unwrap();
    fs::write(session.project.lock_path(), lock).unwrap();
    session
}

/// With `POLICY_MODE=audit`, cargo behaves as with a mirror without a policy.
fn audit_changes_nothing(scene: &Scene) {
    let runs = [
        [("POLICY_MODE", "audit"), ("HELD_DOWNLOADS", "deny")].as_slice(),
        &[("MIN_PUBLISH_AGE", "0"), ("POLICY_FILE", "")],
    ];
    let [audit, none] = runs.map(|settings| {
        let mirror = scene.start(settings);
        let mut session = Session::new(&mirror, &WAYS[0]);
        session.does("add held-lib denied-lib");
        session.does("generate-lockfile");
        let lock = session.project.lock_file();
        session.does("fetch --locked");
        session.does("add held-only denied-only held-lib@1.1.0");
        let file = mirror.get("/index/he/ld/held-lib");
        assert_eq!(file.header("x-policy"), None);
        (lock, session.said, file.body)
    });
    assert!(
        audit.0.matches("version = \"1.1.0\"").count() == 2,
        "{}",
        audit.0
    );
    assert_eq!(audit, none);
}
