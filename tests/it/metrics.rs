//! `/metrics`: every metric exists, moves when it should, and is documented; request ids, and the lines of the log about
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use crates_io_mirror::Clock;
use tempfile::TempDir;

use crate::git_served::GitClone;
use crate::support::{
    Authority, Client, Connection, CrateFile, GitIndex, Http2, Mirror, Origin, Program,
    UpstreamFault, borrowed, eventually, get_by_http1, stored_path, tls,
};

const DOCUMENT: &str = include_str!("../../docs/metrics.md");

/// All series with their values.
fn scrape(client: &Client) -> BTreeMap<String, f64> {
    series(&client.get("/metrics").text())
}

fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let name = name.trim_start_matches("crates_io_mirror_").to_owned();
            (name, value.parse().unwrap())
        })
        .collect()
}

/// The names of the `TYPE` lines, with their types.
fn types(text: &str) -> BTreeSet<(String, String)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

/// The rows of the tables in the document: name and type.
fn documented() -> BTreeSet<(String, String)> {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (name, rest) = row.split_once("` | ").unwrap();
        let kind = rest.split_once(" |").unwrap().0;
        (name.to_owned(), kind.to_owned())
    })
    .collect()
}

#[track_caller]
fn eventually_counted(client: &Client, name: &str, is_right: impl Fn(f64) -> bool) {
    let mut last = None;
    eventually(name, || {
        last = scrape(client).get(name).copied();
        last.is_some_and(&is_right)
    });
}

#[test]
fn every_metric_moves_and_the_document_has_all_of_them() {
    let origin = Origin::of(3);
    let target = GitIndex::empty();
    let data = TempDir::new().unwrap();
    let own = origin.settings();
    let mut settings = borrowed(&own);
    let push_url = target.path().to_str().unwrap().to_owned();
    let database = GitIndex::empty();
    let advisory = b"no advisory";
    let advisory_path = "crates/a/RUSTSEC-2026-0001.md";
    database.commit().file(advisory_path, advisory).send();
    let database_url = database.path().to_str().unwrap().to_owned();
    settings.extend([
        ("ADVISORY_DB_URL", database_url.as_str()),
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("STORAGE_MAX_BYTES", "1000000"),
        ("INDEX_PUSH_URL", push_url.as_str()),
    ]);
    let mirror = Mirror::start_public(&settings);
    mirror.wait_until_ready();
    eventually_counted(&mirror, "pushes_total{result=\"ok\"}", |count| count >= 1.0);
    eventually_counted(&mirror, "advisories_skipped", |count| count == 1.0);
    eventually_counted(&mirror, "advisories_age_seconds", |age| age < 60.0);
    let before = scrape(&mirror);

    // Clients.
    let path = origin.files[0].download_path();
    assert_eq!(mirror.get(&path).status, 200);
    origin.upstream.fail(UpstreamFault::Status(404));
    assert_eq!(mirror.get(&origin.files[1].download_path()).status, 404);
    origin.upstream.heal();
    origin.upstream.fail(UpstreamFault::WrongBytes);
    assert_eq!(mirror.get(&origin.files[2].download_path()).status, 502);
    origin.upstream.heal();
    for hostile in ["BREW", "get", "X-Y"] {
        let answer = mirror.request(hostile, "/api/v1/crates/none", &[]);
        assert_eq!(answer.status, 405);
    }
    assert_eq!(mirror.get("/nowhere/at/all").status, 404);
    assert_eq!(mirror.get("/api/v1/crates/none").status, 404);
    assert_eq!(mirror.get("/index/no/ne/none").status, 404);
    let idle = Connection::open(mirror.address).unwrap();
    eventually_counted(&mirror, "connections", |count| count >= 2.0);
    drop(idle);

    let after = scrape(&mirror);
    let growth = |name: &str| after[name] - before.get(name).copied().unwrap_or(0.0);
    let host = "127.0.0.1";
    let download = "/api/v1/crates/{name}/{version}/download";
    for (name, expected) in [
        (
            format!("http_requests_total{{route=\"{download}\",method=\"GET\",status=\"200\"}}"),
            1.0,
        ),
        (
            format!("http_requests_total{{route=\"{download}\",method=\"GET\",status=\"404\"}}"),
            1.0,
        ),
        (
            format!("http_requests_total{{route=\"{download}\",method=\"GET\",status=\"502\"}}"),
            1.0,
        ),
        (
            "http_requests_total{route=\"/index/{path}\",method=\"GET\",status=\"404\"}".to_owned(),
            1.0,
        ),
        (
            "http_requests_total{route=\"other\",method=\"GET\",status=\"404\"}".to_owned(),
            1.0,
        ),
        (
            "http_requests_total{route=\"/api/v1/crates/{name}\",method=\"GET\",status=\"404\"}"
                .to_owned(),
            1.0,
        ),
        (
            "http_requests_total{route=\"/api/v1/crates/{name}\",method=\"other\",status=\"405\"}"
                .to_owned(),
            3.0,
        ),
        (
            format!("http_request_duration_seconds_count{{route=\"{download}\"}}"),
            3.0,
        ),
        (
            format!("upstream_requests_total{{upstream=\"{host}\",result=\"ok\"}}"),
            1.0,
        ),
        (
            format!("upstream_requests_total{{upstream=\"{host}\",result=\"missing\"}}"),
            1.0,
        ),
        ("crate_files_total{result=\"corrupt\"}".to_owned(), 1.0),
        ("store_files".to_owned(), 1.0),
        (
            "store_bytes".to_owned(),
            origin.files[0].bytes().len() as f64,
        ),
        (
            "crate_file_fetched_bytes_total".to_owned(),
            origin.files[0].bytes().len() as f64,
        ),
    ] {
        assert_eq!(growth(&name), expected, "{name}\n{after:#?}");
    }
    assert!(
        growth(&format!(
            "http_response_bytes_total{{route=\"{download}\"}}"
        )) > 0.0
    );
    assert!(growth("crate_file_checksum_mismatches_total") >= 1.0);
    assert!(
        growth(&format!(
            "upstream_requests_total{{upstream=\"{host}\",result=\"corrupt\"}}"
        )) >= 1.0
    );
    assert!(growth("upstream_request_duration_seconds_count") >= 3.0);
    // The scrape itself. A request ends a moment after its client has the answer.
    eventually_counted(&mirror, "http_requests_in_flight", |count| count == 1.0);
    assert_eq!(after["store_limit_bytes"], 1_000_000.0);
    assert!(after["index_packs"] >= 1.0 && after["index_disk_bytes"] > 1_000.0);
    assert_eq!(
        (after["ready"], after["index_clone_progress_ratio"]),
        (1.0, 1.0)
    );
    assert!(after["process_open_fds"] > 5.0 && after["process_max_fds"] > 50.0);
    assert!(after["process_resident_memory_bytes"] < after["process_virtual_memory_bytes"]);
    assert!(
        after["process_start_time_seconds"] > 1.6e9 && after["process_cpu_seconds_total"] > 0.0
    );

    // git.
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                mirror.get("/git/index/info/refs?service=git-upload-pack");
            }
        });
        eventually_counted(&mirror, "git_processes", |count| count >= 1.0);
        ended.store(true, Ordering::Relaxed);
    });
    eventually_counted(&mirror, "git_processes", |count| count == 0.0);

    // The index.
    let commit_time = after["index_commit_timestamp_seconds"];
    let disk_bytes = after["index_disk_bytes"];
    let line = origin.files[0].index_line();
    let commit = origin
        .index
        .commit()
        .crate_file(origin.files[0].name, &[line, b"\n".to_vec()].concat())
        .send();
    mirror.wait_for_commit(&commit);
    eventually_counted(&mirror, "index_disk_bytes", |bytes| bytes != disk_bytes);
    let fetched = scrape(&mirror);
    assert!(
        fetched["index_fetches_total{result=\"ok\"}"]
            > before["index_fetches_total{result=\"ok\"}"]
    );
    assert!(fetched["index_commit_timestamp_seconds"] >= commit_time && commit_time > 0.0);
    assert!(fetched["index_last_success_timestamp_seconds"] > 1.6e9);
    assert!(fetched["index_fetch_duration_seconds_sum"] > 0.0);
    std::fs::rename(target.path(), target.root().join("gone")).unwrap();
    let commit = origin.index.commit().file("more", b"").send();
    mirror.wait_for_commit(&commit);
    eventually_counted(&mirror, "pushes_total{result=\"failed\"}", |count| {
        count >= 1.0
    });
    std::fs::rename(origin.index.path(), origin.index.root().join("gone")).unwrap();
    eventually_counted(&mirror, "index_fetches_total{result=\"failed\"}", |count| {
        count >= 1.0
    });
    eventually_counted(&mirror, "index_failures", |count| count >= 1.0);

    // The document, and both formats.
    let plain = mirror.get("/metrics");
    let mut seen = types(&plain.text());
    // Only with TLS; another test looks at it.
    seen.insert((
        "crates_io_mirror_tls_certificate_expiry_timestamp_seconds".to_owned(),
        "gauge".to_owned(),
    ));
    assert_eq!(seen, documented());
    assert_eq!(plain.header("vary"), Some("accept"));
    let helps = plain
        .text()
        .lines()
        .filter(|line| line.starts_with("# HELP "))
        .count();
    assert_eq!(helps, seen.len() - 1);
    assert!(!plain.text().contains("# EOF"));
    let asked = [("accept", "application/openmetrics-text; version=1.0.0")];
    let open = mirror.request("GET", "/metrics", &asked);
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.header("content-type"), Some(format));
    assert!(open.text().ends_with("# EOF\n"));
    assert!(
        open.text()
            .contains("# TYPE crates_io_mirror_http_requests counter\n")
    );
    assert_eq!(series(&open.text()).len(), series(&plain.text()).len());
}

/// 2026-11-20T00:00:00Z. The clock of the test of the policy does not move.
const POLICY_NOW: u64 = 1_795_132_800;

/// An index line. `rest` is `,"pubtime":"…"` and more.
fn policy_line(name: &str, version: &str, checksum: char, rest: &str) -> String {
    let checksum = checksum.to_string().repeat(64);
    format!(
        r#"{{"name":"{name}","vers":"{version}","deps":[],"cksum":"{checksum}","features":{{}}{rest}}}"#
    )
}

/// What `/readyz`, `/status` and the page say of a policy.
fn assert_policy_is_shown(mirror: &Mirror, error: Option<&str>, in_words: &str) {
    let ready = mirror.get("/readyz");
    assert_eq!(ready.status, 200);
    let warnings = ready.json()["warnings"].to_string();
    assert_eq!(
        warnings.contains("the policy file cannot be used"),
        error.is_some(),
        "{warnings}"
    );
    let status = mirror.get("/status").json();
    assert_eq!(status["policy"], mirror.get("/policy").json());
    assert!(warnings.contains(error.unwrap_or("")), "{warnings}");
    assert!(warnings.contains("expired"), "{warnings}");
    let shown = &status["policy"]["policy_file_error"];
    assert_eq!(shown.is_string(), error.is_some(), "{shown}");
    assert!(!shown.to_string().contains("policy.toml"), "{shown}");
    let page = mirror.get("/").text();
    assert!(page.contains(in_words), "{page}");
    assert!(page.contains("<a href=\"/policy\">"), "{page}");
    assert!(!page.contains("policy.toml"), "{page}");
}

#[test]
fn every_metric_of_the_policy_moves_and_status_and_page_show_it() {
    let (index, database) = (GitIndex::empty(), GitIndex::empty());
    let (data, home) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let old = r#","yanked":false,"pubtime":"2026-01-01T00:00:00Z""#;
    let fresh = r#","yanked":false,"pubtime":"2026-11-19T00:00:00Z""#;
    let commit = |checksum, yanked: &str, more: &str| {
        let file = |lines: &[String]| (lines.join("\n") + "\n").into_bytes();
        let guarded = [
            policy_line("guarded", "0.3.8", '0', &old.replace("false", yanked)),
            policy_line("guarded", "0.3.9", '0', fresh),
        ];
        let young = [
            policy_line("young", "1.0.0", checksum, old),
            policy_line("young", "1.1.0", '0', fresh),
        ];
        // A second flag: the line cannot be edited.
        let odd = format!(r#"{fresh},"yanked":false"#);
        let commit = index
            .commit()
            .crate_file("guarded", &file(&guarded))
            .crate_file("young", &file(&young))
            .crate_file("evil", &file(&[policy_line("evil", "1.0.0", '0', old)]))
            .crate_file("odd", &file(&[policy_line("odd", "1.0.0", '0', &odd)]))
            .crate_file(
                "ageless",
                &file(&[policy_line("ageless", "1.0.0", '0', "")]),
            )
            .file("more", more.as_bytes());
        commit.send()
    };
    commit('0', "false", "");
    database
        .commit()
        .file("crates/a/RUSTSEC-2026-0001.md", b"no advisory")
        .send();
    let policy_file = home.path().join("policy.toml");
    let good = "[bans]\ndeny = [\"evil\"]\n[mirror]\nexempt = [{ crate = \"young\", expires = 2026-11-01 }]\n";
    std::fs::write(&policy_file, good).unwrap();
    let (index_path, database_path) = (index.path(), database.path());
    let settings = [
        ("GIT_REPO_URL", index_path.to_str().unwrap()),
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("PUBLIC_URL", "http://mirror.example"),
        ("ADVISORY_DB_URL", database_path.to_str().unwrap()),
        ("POLICY_FILE", policy_file.to_str().unwrap()),
        ("MIN_PUBLISH_AGE", "7 days"),
        ("HELD_DOWNLOADS", "deny"),
        ("YANK_GUARD", "3 days"),
    ];
    let clock = || Clock::custom(|| UNIX_EPOCH + Duration::from_secs(POLICY_NOW));
    let ask = |mirror: &Mirror, crates: &[(&str, &str, u16)]| {
        for (name, version, download) in crates {
            let path = crate::support::index_path(name);
            assert_eq!(mirror.get(&format!("/index/{path}")).status, 200);
            assert_eq!(mirror.get(&format!("/api/v1/crates/{name}")).status, 200);
            let path = format!("/api/v1/crates/{name}/{version}/download");
            assert_eq!(mirror.get(&path).status, *download, "{path}");
        }
        GitClone::of(&format!("http://{}/git/index", mirror.address), &["--bare"]);
    };
    let counted = |mirror: &Mirror, mode: &str, pairs: &[(&str, &str)]| {
        let now = scrape(mirror);
        for (state, surface) in pairs {
            let name =
                format!("policy_total{{state=\"{state}\",surface=\"{surface}\",mode=\"{mode}\"}}");
            assert!(now[&name] >= 1.0, "{name}: {now:#?}");
        }
    };

    let mirror = Mirror::start_at(&settings, clock());
    mirror.wait_until_ready();
    eventually_counted(&mirror, "advisories_skipped", |count| count == 1.0);
    eventually("the view has the advisories", || {
        mirror.get("/policy").json()["advisories"]["age_seconds"] == 0
    });
    let before = scrape(&mirror);
    for (name, value) in [
        ("policy_file_error", 0.0),
        ("policy_lines_left_out", 1.0),
        ("index_lines_without_pubtime", 1.0),
        ("index_checksum_changes_total", 0.0),
        ("advisories_age_seconds", 0.0),
        (
            "policy_total{state=\"denied\",surface=\"download\",mode=\"enforce\"}",
            0.0,
        ),
    ] {
        assert_eq!(before.get(name), Some(&value), "{name}: {before:#?}");
    }
    assert_policy_is_shown(
        &mirror,
        None,
        "enforce: 3 versions held, 1 denied, 0 frozen",
    );
    let at = commit('1', "true", "");
    mirror.wait_for_commit(&at);
    ask(
        &mirror,
        &[
            ("young", "1.1.0", 403),
            ("evil", "1.0.0", 403),
            ("guarded", "0.3.8", 302),
        ],
    );
    let surfaces = ["sparse", "git", "api", "download"];
    let all = surfaces.map(|surface| ("held", surface));
    counted(&mirror, "enforce", &all);
    counted(
        &mirror,
        "enforce",
        &all.map(|(_, surface)| ("denied", surface)),
    );
    counted(
        &mirror,
        "enforce",
        &[("frozen", "sparse"), ("frozen", "git"), ("frozen", "api")],
    );
    assert_eq!(scrape(&mirror)["index_checksum_changes_total"], 1.0);
    assert_policy_is_shown(
        &mirror,
        None,
        "enforce: 3 versions held, 1 denied, 1 frozen",
    );
    std::fs::write(&policy_file, "[mirror]\nunknown = 1\n").unwrap();
    mirror.wait_for_commit(&commit('1', "true", "more"));
    eventually_counted(&mirror, "policy_file_error", |error| error == 1.0);
    assert_policy_is_shown(&mirror, Some("unknown"), "1 denied");
    // A full disk leaves a file like this.
    std::fs::write(&policy_file, "").unwrap();
    eventually("the empty file is read", || {
        mirror.get("/readyz").text().contains("the file is empty")
    });
    assert_policy_is_shown(&mirror, Some("the file is empty"), "1 denied");
    std::fs::write(&policy_file, good).unwrap();
    eventually_counted(&mirror, "policy_file_error", |error| error == 0.0);
    mirror.stop();

    let audit = [&settings[..], &[("POLICY_MODE", "audit")]].concat();
    let mirror = Mirror::start_at(&audit, clock());
    mirror.wait_until_ready();
    assert_policy_is_shown(&mirror, None, "audit (no answer changes): 3 versions held");
    ask(
        &mirror,
        &[
            ("young", "1.1.0", 302),
            ("evil", "1.0.0", 302),
            ("guarded", "0.3.8", 302),
        ],
    );
    counted(&mirror, "audit", &all);
    counted(
        &mirror,
        "audit",
        &all.map(|(_, surface)| ("denied", surface)),
    );
    counted(
        &mirror,
        "audit",
        &[("frozen", "sparse"), ("frozen", "git"), ("frozen", "api")],
    );
    mirror.stop();

    // Without a policy nothing is said of one.
    let none: Vec<_> = settings[..3].to_vec();
    let mirror = Mirror::start_at(&none, clock());
    mirror.wait_until_ready();
    assert!(!mirror.get("/").text().contains("/policy"));
    assert_eq!(mirror.get("/status").json()["policy"]["mode"], "off");
    assert!(!scrape(&mirror).contains_key("policy_file_error"));
}

#[test]
fn the_store_counts_evicted_files_failures_and_damaged_files() {
    let files = ["one", "two", "three"].into_iter().zip(1..);
    let files = files.map(|(name, seed)| CrateFile::noise(name, "1.0.0", seed, 10_000));
    let origin = Origin::with(files.collect());
    let data = TempDir::new().unwrap();
    let own = origin.settings();
    let mut settings = borrowed(&own);
    settings.extend([
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("STORAGE_MAX_BYTES", "25000"),
    ]);
    let mirror = Mirror::start(&settings);
    mirror.wait_until_ready();
    for file in &origin.files {
        assert_eq!(mirror.get(&file.download_path()).status, 200);
    }
    eventually_counted(&mirror, "store_evicted_files_total", |count| count == 1.0);
    // A file in the place of the directory.
    let store = data.path().join("crates");
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::write(&store, b"in the way").unwrap();
    let file = &origin.files[0];
    assert_eq!(mirror.get(&file.download_path()).status, 200);
    eventually_counted(&mirror, "store_failures_total", |count| count >= 1.0);
    std::fs::remove_file(&store).unwrap();
    let path = stored_path(&store, &file.checksum());
    eventually("the file is stored again", || {
        mirror.get(&file.download_path()).status == 200 && path.is_file()
    });
    mirror.stop();

    std::fs::write(&path, b"damaged").unwrap();
    settings.retain(|(name, _)| *name != "DOWNLOAD_MODE" && *name != "STORAGE_MAX_BYTES");
    settings.push(("DOWNLOAD_MODE", "offline"));
    let mirror = Mirror::start(&settings);
    mirror.wait_until_ready();
    assert_ne!(mirror.get(&file.download_path()).status, 200);
    eventually_counted(&mirror, "store_damaged_files_total", |count| count == 1.0);
    let offline = scrape(&mirror);
    assert_eq!(offline["ready"], 1.0);
    // Nothing is fetched offline, and there is no limit.
    assert!(offline.keys().all(|name| {
        !name.starts_with("upstream_requests_total") && name != "store_limit_bytes"
    }));
}

#[test]
fn a_renewed_certificate_moves_its_metric_and_the_log_says_the_settings_and_request_ids() {
    let (authority, data) = (Authority::new(), TempDir::new().unwrap());
    let own = authority.settings();
    let mut settings = borrowed(&own);
    settings.extend([
        ("GIT_REPO_URL", "http://b0b:s3cret@127.0.0.1:1/index.git"),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ]);
    let program = Program::start(&settings);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let get = |path: &str| {
        runtime.block_on(async {
            let stream = tls(program.address, &authority, &[b"http/1.1"])
                .await
                .unwrap();
            String::from_utf8(get_by_http1(stream, path).await.body.to_vec()).unwrap()
        })
    };
    let expiry = |text: &str| {
        series(text)
            .get("tls_certificate_expiry_timestamp_seconds")
            .copied()
    };
    let first = expiry(&get("/metrics")).unwrap();
    assert!(first > 1.9e9, "{first}");
    let by_http2 = runtime.block_on(async {
        let client = Http2::over_tls(program.address, &authority).await;
        client.get("/metrics").await
    });
    assert_eq!(
        by_http2.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let by_http2 = String::from_utf8(by_http2.body.to_vec()).unwrap();
    assert_eq!(expiry(&by_http2), Some(first));
    assert!(series(&by_http2)["connections"] >= 1.0);
    authority.renew_until(2035);
    eventually("the metric follows", || {
        expiry(&get("/metrics")) == Some(2_051_222_400.0)
    });

    get("/api/v1/crates/none");
    eventually("the request is logged", || {
        !program.request_events().is_empty()
    });
    let events = program.request_events();
    assert!(
        events.iter().all(|event| event["path"] != "/metrics"),
        "{events:?}"
    );
    let id = events[0]["request_id"].as_str().unwrap();
    assert!(
        id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
    eventually("the fetch of the index has failed again", || {
        let failures = series(&get("/metrics"))["index_failures"];
        failures >= 2.0
    });
    let output = program.output();
    for told_once in ["the index could not be fetched", "cloning the index"] {
        assert_eq!(
            output.matches(told_once).count(),
            1,
            "{told_once}: {output}"
        );
    }
    let line = output
        .lines()
        .find(|line| line.contains("the settings in effect"))
        .unwrap();
    assert!(
        line.contains("GIT_REPO_URL=http://***@127.0.0.1:1/index.git"),
        "{line}"
    );
    assert!(
        line.contains("REFRESH_INTERVAL_SECS=") && !line.contains("s3cret"),
        "{line}"
    );
}

#[test]
fn every_answer_carries_a_request_id() {
    let data = TempDir::new().unwrap();
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", "http://127.0.0.1:1/index.git"),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ]);
    for (method, path) in [
        ("GET", "/livez"),
        ("HEAD", "/metrics"),
        ("GET", "/nowhere"),
        ("GET", "/index/se/rd/serde"),
        ("GET", "/api/v1/crates/a/1.0.0/download"),
        ("GET", "/api/v1/crates/%ff/1.0.0/download"),
        ("PUT", "/api/v1/crates/new"),
        ("BREW", "/"),
    ] {
        let answer = mirror.request(method, path, &[("x-request-id", "A.b_9-z")]);
        assert_eq!(
            answer.header("x-request-id"),
            Some("A.b_9-z"),
            "{method} {path}"
        );
        for bad in ["", "a b", "a=b;c", &"x".repeat(129)] {
            let answer = mirror.request(method, path, &[("x-request-id", bad)]);
            let id = answer.header("x-request-id").unwrap();
            assert!(id.len() == 16 && id != bad, "{method} {path} {bad}: {id}");
        }
    }
}
