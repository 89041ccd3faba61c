//! The files of `deploy/` agree with the mirror: its settings, its metrics and its toolchain. `.ci/deploy` starts them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crates_io_mirror::{Config, VARIABLES};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Authority, CrateFile, GitIndex, Mirror, Origin, Program, borrowed, eventually, get_by_http1,
    tls,
};

/// The prefix of the mirror's own metrics.
const PREFIX: &str = "crates_io_mirror_";

/// Variables in deploy files that other programs read.
const OTHERS: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
];

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("deploy/{path}: {error}"))
}

/// The expressions of all panels.
fn dashboard_expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let expressions = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    expressions.collect()
}

/// The names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let names = words.filter(|word| word.starts_with(PREFIX) || word.starts_with("process_"));
    names.map(str::to_owned).collect()
}

/// The metrics of a page, with their types.
fn types_in(page: &str) -> BTreeMap<String, String> {
    let types = page.lines().filter_map(|line| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some((name.to_owned(), kind.to_owned()))
    });
    types.collect()
}

/// The metrics of a mirror in the mode `cache` with a bound for its store and a policy.
fn metrics_of_a_cache() -> BTreeMap<String, String> {
    let origin = Origin::with(vec![CrateFile::pack("leaf", "1.0.0", &[])]);
    let data = TempDir::new().unwrap();
    let mut settings = origin.settings().to_vec();
    settings.retain(|(name, _)| *name != "DATA_DIR");
    settings.push(("DATA_DIR", data.path().to_str().unwrap().to_owned()));
    settings.push(("STORAGE_MAX_BYTES", "1GiB".to_owned()));
    settings.push(("MIN_PUBLISH_AGE", "7 days".to_owned()));
    let database = GitIndex::empty();
    database.commit().file("crates/README", b"").send();
    let database_url = database.path().to_str().unwrap().to_owned();
    settings.push(("ADVISORY_DB_URL", database_url));
    let mirror = Mirror::start(&borrowed(&settings));
    mirror.wait_until_ready();
    eventually("the view has the advisories", || {
        mirror.get("/policy").json()["advisories"]["commit"].is_string()
    });
    let download = mirror.get("/api/v1/crates/leaf/1.0.0/download");
    assert_eq!(download.status, 200);
    types_in(&mirror.get("/metrics").text())
}

/// The metrics of a mirror with TLS. It needs no index for them.
fn metrics_with_tls() -> BTreeMap<String, String> {
    let authority = Authority::new();
    let data = TempDir::new().unwrap();
    let mut settings = authority.settings().to_vec();
    settings.push(("GIT_REPO_URL", "http://127.0.0.1:1/index.git".to_owned()));
    settings.push(("DATA_DIR", data.path().to_str().unwrap().to_owned()));
    let program = Program::start(&borrowed(&settings));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let answer = runtime.block_on(async {
        let stream = tls(program.address, &authority, &[b"http/1.1"]).await;
        get_by_http1(stream.unwrap(), "/metrics").await
    });
    types_in(std::str::from_utf8(&answer.body).unwrap())
}

#[test]
fn every_metric_of_the_dashboard_and_the_alerts_exists() {
    let dashboard: Value = serde_json::from_str(&read("grafana/dashboard.json")).unwrap();
    let mut named = metrics_in(&dashboard_expressions(&dashboard).join("\n"));
    for rules in ["prometheus/rules.yaml", "prometheus/rules.test.yaml"] {
        named.extend(metrics_in(&read(rules)));
    }
    assert!(named.len() > 30, "{named:?}");
    let mut shown = metrics_of_a_cache();
    shown.extend(metrics_with_tls());
    // A histogram has three names.
    let is_part_of_a_histogram = |name: &str| {
        let mut ends = ["_bucket", "_sum", "_count"].iter();
        let base = ends.find_map(|end| name.strip_suffix(end));
        base.is_some_and(|base| shown.get(base).is_some_and(|kind| kind == "histogram"))
    };
    named.retain(|name| !shown.contains_key(name) && !is_part_of_a_histogram(name));
    assert!(named.is_empty(), "these do not exist: {named:#?}");
}

#[test]
fn each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let (rules, tests) = (
        read("prometheus/rules.yaml"),
        read("prometheus/rules.test.yaml"),
    );
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() >= 11, "{alerts:?}");
    for alert in alerts {
        let cases: Vec<&str> = tests
            .split("  - name: ")
            .filter(|case| case.contains(&format!("alertname: {alert}\n")))
            .collect();
        let silent = cases
            .iter()
            .filter(|case| case.contains("exp_alerts: []"))
            .count();
        assert!(silent > 0 && silent < cases.len(), "{alert}");
    }
}

#[test]
fn the_dashboard_takes_its_data_source_from_a_variable_and_its_panels_do_not_overlap() {
    let text = read("grafana/dashboard.json");
    // One `uid` is the dashboard's own.
    let named = text.matches("\"uid\": \"").count() - 1;
    assert_eq!(text.matches("\"uid\": \"${datasource}\"").count(), named);
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let of = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(of("x") + of("w") <= 24, "{panel}");
        for cell in (of("x")..of("x") + of("w"))
            .flat_map(|x| (of("y")..of("y") + of("h")).map(move |y| (x, y)))
        {
            assert!(taken.insert(cell), "{panel}");
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|variable| &variable["name"]).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
}

#[test]
fn the_example_environment_file_has_every_setting_with_its_default() {
    let file = read("systemd/crates-io-mirror.env");
    let pairs: Vec<(String, String)> = file
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once('='))
        .filter(|(name, _)| VARIABLES.contains(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, VARIABLES);
    assert!(
        file.lines()
            .all(|line| line.is_empty() || line.starts_with('#')),
        "a line sets a variable"
    );
    // The unit sets DATA_DIR.
    let (directory, others): (Vec<_>, Vec<_>) =
        pairs.into_iter().partition(|(name, _)| name == "DATA_DIR");
    let unit = read("systemd/crates-io-mirror.service");
    assert!(unit.contains(&format!("Environment=DATA_DIR={}\n", directory[0].1)));
    assert_eq!(
        format!("{:?}", Config::from_pairs(others).unwrap()),
        format!("{:?}", Config::from_pairs([]).unwrap())
    );
}

/// `NAME=value` or `NAME: value` in a list or a map, the forms of compose and kustomize.
fn settings_in(text: &str, separator: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| {
        let line = line.trim().trim_start_matches("- ");
        let (name, value) = line.split_once(separator)?;
        let is_name = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
        (name.len() > 2 && name.bytes().all(is_name)).then(|| (name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

#[test]
fn deploy_files_set_only_existing_settings_with_valid_values() {
    let compose = read("compose.yaml");
    let (_, mirror) = compose.split_once("\n  mirror:\n").unwrap();
    let (mirror, _) = mirror.split_once("\n  proxy:\n").unwrap();
    let kubernetes = |variant: &str| read(&format!("kubernetes/{variant}/kustomization.yaml"));
    let both = kubernetes("deployment") + &kubernetes("deployment-s3");
    let nginx = read("nginx/crates-io-mirror.conf");
    let on_one_line = |text: &str| {
        let line = text
            .lines()
            .find(|line| line.contains("PUBLIC_URL="))
            .unwrap();
        let words = line.trim_start_matches(['#', ' ']).replace(' ', "\n");
        settings_in(&words, "=")
    };
    for (file, mut pairs) in [
        ("compose.yaml", settings_in(mirror, ": ")),
        ("statefulset", settings_in(&kubernetes("statefulset"), "=")),
        ("deployment", settings_in(&kubernetes("deployment"), "=")),
        ("deployment-s3", settings_in(&both, "=")),
        ("nginx", on_one_line(&nginx)),
        (
            "nginx, prefix",
            on_one_line(&read("nginx/crates-io-mirror-prefix.conf")),
        ),
        ("Caddy", on_one_line(&read("caddy/Caddyfile"))),
        (
            "Caddy, prefix",
            on_one_line(&read("caddy/Caddyfile.prefix")),
        ),
    ] {
        assert!(!pairs.is_empty(), "{file}");
        for (name, value) in &mut pairs {
            let known = VARIABLES.contains(&name.as_str()) || OTHERS.contains(&name.as_str());
            assert!(known, "{file}: {name}");
            // Placeholders that an operator replaces.
            *value = value
                .replace("${MIRROR_HOST:?}", "mirror.example")
                .replace("${S3_ACCESS_KEY:?}", "key")
                .replace("${S3_SECRET_KEY:?}", "secret");
        }
        if let Err(error) = Config::from_pairs(pairs) {
            panic!("{file}: {error}");
        }
    }
}

#[test]
fn the_ingress_admits_every_route_but_the_internal_ones() {
    let router = include_str!("../../src/http/router.rs");
    let texts = router
        .lines()
        .flat_map(|line| line.split('"').skip(1).step_by(2));
    let firsts = texts.filter_map(|text| text.strip_prefix('/')?.split('/').next());
    let mut routes: BTreeSet<String> = firsts.map(|first| format!("/{first}")).collect();
    for internal in ["/metrics", "/readyz", "/status"] {
        assert!(routes.remove(internal), "{internal}");
    }
    let ingress = read("kubernetes/ingress/ingress.yaml");
    let paths = ingress
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- path: "));
    let admitted: BTreeSet<String> = paths.map(str::to_owned).collect();
    assert_eq!(admitted, routes);
}

#[test]
fn the_image_has_digests_a_toolchain_that_can_build_this_and_one_debian() {
    let file = read("Containerfile");
    let image = |name: &str| {
        let line = file
            .lines()
            .find_map(|line| line.strip_prefix(&format!("FROM docker.io/library/{name}:")));
        let (tag, digest) = line.unwrap().split_once("@sha256:").unwrap();
        let digest = digest.split(' ').next().unwrap();
        let is_hexadecimal = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(digest.len() == 64 && is_hexadecimal, "{name}: {digest}");
        tag.to_owned()
    };
    let (rust, base) = (image("rust"), image("debian"));
    let (version, debian) = rust.split_once("-slim-").unwrap();
    assert_eq!(base, format!("{debian}-slim"));
    let minor = |version: &str| version.split('.').nth(1).unwrap().parse::<u32>().unwrap();
    assert!(
        minor(version) >= minor(env!("CARGO_PKG_RUST_VERSION")),
        "{rust}"
    );
}
