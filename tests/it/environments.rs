//! Unusual machines: read-only disks, an index of the wrong kind, no CA certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, SystemTime};

use crates_io_mirror::{App, Config};
use tempfile::TempDir;

use crate::support::{
    Authority, Fault, GitIndex, GitServer, Mirror, Origin, Program, borrowed, eventually,
    eventually_some, hermetic, succeeds,
};

/// Hides all CA certificates from a process: points it to an empty file and an empty directory.
struct NoCertificates {
    directory: TempDir,
}

impl NoCertificates {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("certs")).unwrap();
        fs::write(directory.path().join("certs.pem"), "").unwrap();
        Self { directory }
    }

    fn settings(&self) -> [(&'static str, String); 2] {
        let path = |name: &str| {
            self.directory
                .path()
                .join(name)
                .to_str()
                .unwrap()
                .to_owned()
        };
        [
            ("SSL_CERT_FILE", path("certs.pem")),
            ("SSL_CERT_DIR", path("certs")),
        ]
    }
}

/// A data directory with the index and one of the two crate files of an upstream.
fn filled() -> (Origin, TempDir) {
    let (origin, data) = (Origin::of(2), TempDir::new().unwrap());
    let own = origin.settings();
    let mirror = Mirror::start(
        &[
            &borrowed(&own)[..],
            &[("DATA_DIR", data.path().to_str().unwrap())],
        ]
        .concat(),
    );
    mirror.wait_until_ready();
    let answer = mirror.get(&origin.files[0].download_path());
    assert_eq!(answer.status, 200);
    (origin, data)
}

/// All files there, with the times of their last changes.
fn listing(directory: &Path) -> Vec<(PathBuf, SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        found.push((entry.path(), entry.metadata().unwrap().modified().unwrap()));
        if entry.file_type().unwrap().is_dir() {
            found.extend(listing(&entry.path()));
        }
    }
    found.sort();
    found
}

fn complaint(output: &Output) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    println!("{said}");
    said
}

fn bare(options: &[&str]) -> (TempDir, String) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("index.git");
    let path = path.to_str().unwrap().to_owned();
    let mut git = hermetic("git", directory.path());
    git.args(["init", "--quiet", "--bare"])
        .args(options)
        .arg(&path);
    succeeds(&git.output().unwrap());
    (directory, path)
}

#[test]
fn a_data_dir_of_another_user_is_served_offline_and_stays_unchanged() {
    let (origin, data) = filled();
    let before = listing(data.path());
    let data_dir = data.path().to_str().unwrap();
    let program = Program::start_without_write_access(
        data.path(),
        &[
            ("DATA_DIR", data_dir),
            ("DOWNLOAD_MODE", "offline"),
            ("INDEX_PRUNED", "true"),
            ("PUBLIC_URL", "http://mirror.example"),
        ],
    );
    program.wait_until_ready();
    let [stored, missing] = [&origin.files[0], &origin.files[1]];
    let index = |name: &str| program.get(&format!("/api/v1/crates/{name}"));
    assert_eq!(index(stored.name).status, 200);
    assert_eq!(
        index(missing.name).status,
        404,
        "a version without a stored file is hidden"
    );
    assert_eq!(program.get(&stored.download_path()).status, 200);
    let git = program.get("/git/index/info/refs?service=git-upload-pack");
    assert_eq!(git.status, 200);
    drop(program);
    assert_eq!(listing(data.path()), before);
}

#[test]
fn a_data_dir_of_another_user_is_served_without_a_temporary_directory() {
    let (origin, data) = filled();
    let before = listing(data.path());
    let program = Program::start_without_write_access(
        data.path(),
        &[
            ("DATA_DIR", data.path().to_str().unwrap()),
            ("DOWNLOAD_MODE", "offline"),
            ("TMPDIR", "/nonexistent"),
        ],
    );
    program.wait_until_ready();
    let name = origin.files[1].name;
    let answer = program.get(&format!("/api/v1/crates/{name}"));
    assert_eq!(answer.status, 200);
    drop(program);
    assert_eq!(listing(data.path()), before);
}

#[test]
fn a_data_dir_with_a_read_only_lock_is_only_read_even_if_the_rest_is_writable() {
    let (origin, data) = filled();
    let index = data.path().join("index");
    fs::remove_file(index.join("lock")).unwrap();
    fs::create_dir(index.join("lock")).unwrap();
    // The state that an earlier release left.
    let clone = fs::read_to_string(index.join("current")).unwrap();
    fs::remove_file(index.join(clone).join("readers")).unwrap();
    let before = listing(data.path());
    let start = |settings: &[(&str, &str)]| {
        let common = [
            ("DATA_DIR", data.path().to_str().unwrap()),
            ("DOWNLOAD_MODE", "offline"),
            ("PUBLIC_URL", "http://mirror.example"),
        ];
        Program::start(&[&common[..], settings].concat())
    };
    let name = origin.files[1].name;
    for settings in [&[][..], &[("TMPDIR", "/nonexistent")]] {
        let program = start(settings);
        program.wait_until_ready();
        assert_eq!(program.get(&format!("/api/v1/crates/{name}")).status, 200);
        eventually("the change feed says why it is off", || {
            let answer = program.get("/changes");
            assert_eq!(answer.status, 503);
            answer.detail().contains("cannot write its change journal")
        });
        drop(program);
        assert_eq!(listing(data.path()), before);
    }
    let program = start(&[("TMPDIR", "/nonexistent"), ("INDEX_PRUNED", "true")]);
    eventually("the reason is named", || {
        let answer = program.get(&format!("/api/v1/crates/{name}"));
        answer.status == 503 && answer.text().contains("INDEX_PRUNED needs")
    });
    drop(program);
    assert_eq!(listing(data.path()), before);
}

#[test]
fn an_offline_mirror_without_an_index_answers_that_it_needs_an_import() {
    let data = TempDir::new().unwrap();
    let mirror = Mirror::start(&[
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("DOWNLOAD_MODE", "offline"),
    ]);
    eventually("the mirror has tried", || {
        let ready = mirror.get("/readyz").text();
        ready.contains("import one")
    });
    for path in [
        "/api/v1/crates/serde",
        "/index/se/rd/serde",
        "/index/config.json",
    ] {
        let answer = mirror.get(path);
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("import one"), "{}", answer.text());
        assert!(!answer.text().contains("being made"));
    }
}

#[test]
fn a_data_dir_that_cannot_be_written_to_ends_the_start_with_exit_code_1() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let occupied = directory.path().join("occupied");
    fs::create_dir(&occupied).unwrap();
    fs::write(occupied.join("index"), "").unwrap();
    for data_dir in [&file, &file.join("data"), &occupied] {
        let settings = [("DATA_DIR", data_dir.to_str().unwrap())];
        let output = Program::run(&settings);
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(said.lines().count(), 1);
        assert!(said.starts_with("DATA_DIR: cannot write to"), "{said}");
        let output = Program::run_verb(&["check-config"], &settings);
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said.contains("problem: DATA_DIR: cannot write to"),
            "{said}"
        );
    }
}

#[test]
fn a_data_dir_that_another_process_keeps_locked_ends_the_mirror() {
    let (origin, data) = filled();
    let settings = [
        (
            "GIT_REPO_URL",
            origin.index.path().to_str().unwrap().to_owned(),
        ),
        ("DATA_DIR", data.path().to_str().unwrap().to_owned()),
        ("BIND_ADDRESS", "127.0.0.1".to_owned()),
        ("PORT", "0".to_owned()),
    ];
    let first = Program::start(&borrowed(&settings));
    first.wait_until_ready();
    let owned = settings.map(|(name, value)| (name.to_owned(), value));
    let mut config = Config::from_pairs(owned).unwrap();
    config.lock_wait_max = Duration::from_millis(1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ended = runtime.block_on(async {
        let app = App::bind(config).await.unwrap();
        app.run(std::future::pending()).await
    });
    let why = ended.unwrap_err().to_string();
    assert!(
        why.contains("another mirror is using this DATA_DIR"),
        "{why}"
    );
    assert_eq!(first.get("/readyz").status, 200);
}

#[test]
fn a_rolling_restart_on_one_data_dir_ends_with_the_new_process_serving() {
    let (origin, data) = filled();
    let settings = [
        (
            "GIT_REPO_URL",
            origin.index.path().to_str().unwrap().to_owned(),
        ),
        ("DATA_DIR", data.path().to_str().unwrap().to_owned()),
    ];
    let mut old = Program::start(&borrowed(&settings));
    old.wait_until_ready();
    let new = Program::start(&borrowed(&settings));
    eventually("the new process waits", || {
        new.get("/readyz").text().contains("another mirror")
    });
    let answer = new.get("/api/v1/crates/serde");
    assert!(
        answer.text().contains("another mirror"),
        "{}",
        answer.text()
    );
    old.terminate();
    assert_eq!(old.wait_for_exit(), Some(0));
    new.wait_until_ready();
}

#[test]
fn a_local_index_that_cannot_be_cloned_ends_the_mirror_with_the_reason() {
    let (_sha256, sha256) = bare(&["--object-format=sha256"]);
    let (_reftable, reftable) = bare(&[]);
    let mut config = fs::read_to_string(format!("{reftable}/config")).unwrap();
    config = config.replace("repositoryformatversion = 0", "repositoryformatversion = 1");
    config.push_str("[extensions]\n\trefstorage = reftable\n");
    fs::write(format!("{reftable}/config"), config).unwrap();
    let directory = TempDir::new().unwrap();
    let directory = directory.path().to_str().unwrap();
    let missing = format!("{directory}/missing");
    let as_url = format!("file://{missing}");
    for (url, reason) in [
        (missing.as_str(), "does not exist"),
        (&as_url, "does not exist"),
        (directory, "is no git repository"),
        (&sha256, "sha256"),
        (&reftable, "reftable"),
    ] {
        let settings = [("GIT_REPO_URL", url), ("DATA_DIR", "data")];
        for arguments in [&[][..], &["check-config"]] {
            let output = Program::run_verb(arguments, &settings);
            let said = complaint(&output);
            assert_eq!(output.status.code(), Some(1), "{url}");
            assert!(said.contains("GIT_REPO_URL: `"), "{said}");
            assert!(said.contains(reason), "{said}");
        }
    }
}

#[test]
fn after_a_local_index_vanishes_the_clone_stays_in_use() {
    let (origin, data) = filled();
    let missing = origin.index.path();
    let settings = [
        ("GIT_REPO_URL", missing.to_str().unwrap().to_owned()),
        ("DATA_DIR", data.path().to_str().unwrap().to_owned()),
    ];
    drop(origin);
    let mirror = Mirror::start(&borrowed(&settings));
    eventually("the mirror has tried", || {
        let last_error = mirror.get("/readyz").json()["index"]["last_error"].clone();
        last_error
            .as_str()
            .is_some_and(|error| error.contains("does not exist"))
    });
    assert_eq!(mirror.get("/readyz").status, 200);
    assert_eq!(mirror.get("/index/config.json").status, 200);
}

#[test]
fn the_mirror_waits_for_the_first_commit_of_a_local_index() {
    let (_directory, path) = bare(&[]);
    let data = TempDir::new().unwrap();
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", path.as_str()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ]);
    eventually("the mirror has tried", || {
        mirror.get("/readyz").text().contains("has no HEAD")
    });
}

#[test]
fn a_remote_index_with_sha_256_is_named_as_unsupported() {
    let index = GitIndex::empty();
    let path = index.path();
    fs::remove_dir_all(&path).unwrap();
    let mut git = hermetic("git", path.parent().unwrap());
    git.args(["init", "--quiet", "--bare", "--object-format=sha256"])
        .arg(&path);
    succeeds(&git.output().unwrap());
    let mut commit = hermetic("git", path.parent().unwrap());
    commit
        .args(["-c", "user.name=a", "-c", "user.email=a@b", "--git-dir"])
        .arg(&path);
    commit.args([
        "commit-tree",
        "-m",
        "one",
        "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
    ]);
    let made = commit.output().unwrap();
    println!("{made:?}");
    let id = String::from_utf8(made.stdout).unwrap();
    let mut update = hermetic("git", path.parent().unwrap());
    update
        .arg("--git-dir")
        .arg(&path)
        .args(["update-ref", "HEAD", id.trim()]);
    succeeds(&update.output().unwrap());
    let server = GitServer::start_with(&index, Fault::None);
    let data = TempDir::new().unwrap();
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", &server.url()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ]);
    let reason = eventually_some("the mirror has tried", || {
        let ready = mirror.get("/readyz").json();
        ready["index"]["last_error"].as_str().map(str::to_owned)
    });
    assert!(reason.contains("SHA-256"), "{reason}");
    let answer = mirror.get("/api/v1/crates/serde");
    assert!(answer.text().contains("SHA-256"), "{}", answer.text());
}

#[test]
fn without_ca_certificates_the_mirror_and_check_config_name_the_remedy() {
    let machine = NoCertificates::new();
    let none = machine.settings();
    let (_directory, index) = bare(&[]);
    let own = [
        ("GIT_REPO_URL", index.as_str()),
        ("DATA_DIR", "data"),
        ("DOWNLOAD_MODE", "cache"),
        ("DOWNLOAD_URL", "https://127.0.0.1:1/{crate}/{version}"),
    ];
    let settings = [&own[..], &borrowed(&none)].concat();
    for arguments in [&[][..], &["check-config"]] {
        let output = Program::run_verb(arguments, &settings);
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains("no CA certificates"), "{said}");
        assert!(said.contains("SSL_CERT_FILE") && said.contains("ca-certificates"));
        assert!(!said.contains("builder error"), "{said}");
    }
    let bucket = [
        ("STORAGE_URL", "s3://bucket/crates"),
        ("AWS_REGION", "eu-west-1"),
    ];
    let settings = [&settings[..], &bucket].concat();
    let output = Program::run(&settings);
    assert_eq!(output.status.code(), Some(2));
    assert!(complaint(&output).contains("expected CA certificates"));
    let plain = [&settings[..], &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]].concat();
    let output = Program::run(&plain);
    assert_eq!(output.status.code(), Some(1), "the bucket's URL is valid");
    assert!(complaint(&output).contains("no CA certificates"));
}

#[test]
fn without_ca_certificates_upstreams_with_http_work() {
    let machine = NoCertificates::new();
    let none = machine.settings();
    let (origin, data) = (Origin::of(1), TempDir::new().unwrap());
    let server = GitServer::start_with(&origin.index, Fault::None);
    let url = server.url();
    let template = origin.upstream.template();
    let own = [
        ("GIT_REPO_URL", url.as_str()),
        ("DOWNLOAD_URL", &template),
        ("DOWNLOAD_MODE", "cache"),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ];
    let settings = [&own[..], &borrowed(&none)].concat();
    let program = Program::start(&settings);
    program.wait_until_ready();
    let answer = program.get(&origin.files[0].download_path());
    assert_eq!(answer.status, 200);
    let output = Program::run_verb(&["check-config"], &settings);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
}

#[test]
fn the_error_for_an_unknown_ca_says_how_to_add_it() {
    let authority = Authority::new();
    let (_directory, index) = bare(&[]);
    let data = TempDir::new().unwrap();
    // Any TLS server is enough here: the connection ends before git's protocol begins.
    let own = authority.settings();
    let tls = [
        &borrowed(&own)[..],
        &[
            ("GIT_REPO_URL", index.as_str()),
            ("DATA_DIR", data.path().to_str().unwrap()),
        ],
    ]
    .concat();
    let server = Mirror::start(&tls);
    let url = format!("https://127.0.0.1:{}/git/index", server.address.port());
    let data = TempDir::new().unwrap();
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", &url),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ]);
    let reason = eventually_some("the mirror has tried", || {
        let ready = mirror.get("/readyz").json();
        ready["index"]["last_error"].as_str().map(str::to_owned)
    });
    assert!(reason.contains("SSL_CERT_FILE"), "{reason}");
}
