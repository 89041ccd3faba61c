//! An index with crates that show the differences, and a mirror of it with one stored crate file.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{GitIndex, Mirror, eventually, stored_path};

/// The size of the stored crate file, in bytes.
pub(super) const STORED_BYTES: usize = 321;

/// The checksum of the stored file: of `Inflector` 0.1.0.
const STORED: &str = "d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0";

pub(super) struct Scene {
    pub(super) mirror: Mirror,
    pub(super) commit: String,
    _index: GitIndex,
    _data: TempDir,
}

impl Scene {
    /// Starts a mirror, and waits for its catalog.
    pub(super) fn start() -> Self {
        let index = GitIndex::empty();
        let mut commit = index.commit();
        for (name, lines) in crates() {
            commit = commit.crate_file(name, lines.join("\n").as_bytes());
        }
        let commit = commit.send();
        let data = TempDir::new().unwrap();
        let stored = stored_path(&data.path().join("crates"), STORED);
        std::fs::create_dir_all(stored.parent().unwrap()).unwrap();
        std::fs::write(stored, [0; STORED_BYTES]).unwrap();
        let mirror = Mirror::start(&[
            ("GIT_REPO_URL", index.path().to_str().unwrap()),
            ("DATA_DIR", data.path().to_str().unwrap()),
            ("DOWNLOAD_MODE", "cache"),
        ]);
        mirror.wait_until_ready();
        let summary = "/api/v1/summary";
        eventually("there is a catalog", || mirror.get(summary).status == 200);
        Self {
            mirror,
            commit,
            _index: index,
            _data: data,
        }
    }
}

/// The crates: names and index lines. The times make every order by time total.
fn crates() -> Vec<(&'static str, Vec<String>)> {
    let on = |name: &str, kind: &str| json!([{ "name": name, "req": "^0.1", "kind": kind }]);
    let alias = json!([{ "name": "alias", "package": "inflector", "req": "*", "kind": null, "optional": true }]);
    let many = json!([
        {
            "name": "renamed", "req": "^1", "package": "PLAIN", "features": ["x", ""], "optional": true,
            "default_features": false, "target": "cfg(windows)", "kind": "dev",
        },
        { "name": "zz", "req": "*", "kind": "build" },
        { "name": "inflector", "req": "*", "kind": null },
        { "name": "inflector", "req": "=0.1.0", "kind": "dev" },
        { "name": "aa", "req": "=2", "kind": "weird" },
    ]);
    let mut rich = line("Mixed_Case-Name", "0.5.0", "2020-02-01", false, &many);
    rich["features"] = json!({ "f": ["g"] });
    rich["features2"] = json!({ "f": ["dep:zz"] });
    rich["links"] = json!("native");
    rich["rust_version"] = json!("1.60");
    rich["v"] = json!(2);
    let mut stored = line("Inflector", "0.1.0", "2019-06-01", false, &none());
    stored["cksum"] = json!(STORED);
    let texts = |lines: &[Value]| lines.iter().map(Value::to_string).collect();
    let one = |name: &str, version: &str, day: &str, deps: &Value| {
        vec![line(name, version, day, false, deps).to_string()]
    };
    vec![
        (
            "Mixed_Case-Name",
            vec![
                line("Mixed_Case-Name", "0.1.0-alpha", "2020-01-01", false, &none()).to_string(),
                "junk".to_owned(),
                rich.to_string(),
                line("Mixed_Case-Name", "1.0.0", "2020-03-01", true, &none()).to_string(),
                line("Mixed_Case-Name", "2.0.0-rc.1", "2020-04-01", false, &none()).to_string(),
                r#"{"name":"Mixed_Case-Name","vers":"0.5.1","deps":{"new":"shape"},"cksum":"a4","yanked":false,"v":9}"#
                    .to_owned(),
            ],
        ),
        ("Inflector", texts(&[stored])),
        (
            "built",
            texts(&[
                line("built", "1.0.0+a", "", false, &none()),
                line("built", "1.0.0+b", "", false, &none()),
            ]),
        ),
        (
            "yanked",
            texts(&[
                line("yanked", "1.0.0", "2018-01-01", true, &on("inflector", "normal")),
                line("yanked", "1.1.0", "2018-02-01", true, &on("inflector", "normal")),
            ]),
        ),
        (
            "only-pre",
            texts(&[
                line("only-pre", "0.1.0-a", "2018-03-01", false, &none()),
                line("only-pre", "0.1.0-b", "2018-03-02", false, &none()),
            ]),
        ),
        (
            "tracks",
            texts(&[
                line("tracks", "0.5.1", "2017-01-01", false, &none()),
                line("tracks", "0.5.0", "2017-01-02", false, &none()),
                line("tracks", "1.0.0", "2017-01-03", false, &none()),
                line("tracks", "1.2.0", "2017-01-04", true, &none()),
                line("tracks", "10.0.0", "2017-01-05", false, &none()),
                line("tracks", "2.0.0", "2017-01-06", false, &on("tracks", "dev")),
            ]),
        ),
        (
            "dropped-it",
            texts(&[
                line("dropped-it", "1.0.0", "2021-01-01", false, &on("inflector", "normal")),
                line("dropped-it", "1.1.0", "2021-01-02", false, &none()),
            ]),
        ),
        ("dev-uses", one("dev-uses", "1.0.0", "2021-02-01", &on("Inflector", "dev"))),
        ("renames", one("renames", "1.0.0", "2021-03-01", &alias)),
        ("io", one("io", "1.0.0", "2021-04-01", &on("IO", "dev"))),
        ("my-io", one("my-io", "1.0.0", "2021-05-01", &none())),
        ("Io_x", one("Io_x", "1.0.0", "2021-06-01", &none())),
        ("audio", one("audio", "1.0.0", "2021-07-01", &none())),
        ("a", one("a", "1.0.0", "2021-08-01", &none())),
        ("syn", one("syn", "1.0.0", "2021-09-01", &none())),
        ("a-b_c", one("a-b_c", "1.0.0", "2021-10-01", &none())),
        ("empty", vec![String::new()]),
        ("junk", vec!["not json".to_owned()]),
    ]
}

fn none() -> Value {
    json!([])
}

/// An index line. Without a day it has no publish time.
fn line(name: &str, version: &str, day: &str, yanked: bool, deps: &Value) -> Value {
    let mut line = json!({
        "name": name, "vers": version, "deps": deps, "cksum": "0".repeat(64), "features": {}, "yanked": yanked,
    });
    if !day.is_empty() {
        line["pubtime"] = json!(format!("{day}T00:00:00Z"));
    }
    line
}
