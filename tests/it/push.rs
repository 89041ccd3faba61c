//! The push of the git index to another git host.

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Fault, GitIndex, GitServer, Mirror, Program, eventually, index_line, index_path,
};

const USER: &str = "pu5her";
const PASSWORD: &str = "s3cret-pu5h";

struct Scene {
    index: GitIndex,
    server: GitServer,
    /// The target of the push.
    target: GitIndex,
    target_server: GitServer,
    data: TempDir,
}

impl Scene {
    fn new() -> Self {
        let index = GitIndex::with_fixtures();
        let server = GitServer::start(&index);
        let target = GitIndex::empty();
        target.git(&["config", "http.receivepack", "true"]);
        let target_server = GitServer::start(&target);
        target_server.require(USER, PASSWORD);
        Self {
            index,
            server,
            target,
            target_server,
            data: TempDir::new().unwrap(),
        }
    }

    fn settings(&self, credentials: &str) -> [(&'static str, String); 4] {
        [
            ("GIT_REPO_URL", self.server.url()),
            ("DATA_DIR", self.data.path().to_str().unwrap().to_owned()),
            ("PUBLIC_URL", "https://mirror.example".to_owned()),
            ("INDEX_PUSH_URL", self.target_server.url_with(credentials)),
        ]
    }

    fn publish(&self, version: &str) -> String {
        let line = index_line("leaf", version, false);
        self.index.commit().crate_file("leaf", &line).send()
    }

    /// The content of a file in the target.
    fn pushed(&self, path: &str) -> Option<String> {
        if self.target.git(&["for-each-ref"]).is_empty() {
            return None;
        }
        let there = self.target.git(&["ls-tree", "master", path]);
        let content = || {
            self.target
                .git(&["cat-file", "blob", &format!("master:{path}")])
        };
        (!there.is_empty()).then(content)
    }

    /// The processes that push for this mirror.
    fn pushes(&self) -> usize {
        let data = self.data.path().to_str().unwrap();
        let address = self.target_server.url();
        let processes = std::fs::read_dir("/proc").unwrap();
        let commands = processes.filter_map(|process| {
            // Many processes have ended by now.
            std::fs::read_to_string(process.ok()?.path().join("cmdline")).ok()
        });
        commands
            .filter(|command| command.contains(data) || command.contains(&address))
            .count()
    }

    #[track_caller]
    fn wait_until_pushed(&self, text: &str) {
        eventually("the index is pushed", || {
            self.pushed(&index_path("leaf"))
                .is_some_and(|content| content.contains(text))
        });
    }
}

fn push_status(mirror: &crate::support::Client) -> Value {
    let answer = mirror.get("/readyz");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["push"].clone()
}

#[test]
fn the_rewritten_index_is_pushed_after_each_refresh_and_by_force() {
    let scene = Scene::new();
    let settings = scene.settings(&format!("{USER}:{PASSWORD}"));
    let settings = settings.each_ref().map(|(name, value)| (*name, &**value));
    let mirror = Mirror::start(&settings);
    mirror.wait_until_ready();
    let commit = scene.publish("1.0.0");
    scene.wait_until_pushed("1.0.0");
    assert_eq!(
        scene.pushed("config.json").unwrap(),
        mirror.get("/index/config.json").text()
    );
    eventually("the push is reported", || {
        push_status(&mirror)["commit"] == commit
    });
    assert_eq!(push_status(&mirror)["failures"], 0);
    // All files except config.json are equal to the upstream's.
    let files = |index: &GitIndex| {
        let list = index.git(&["ls-tree", "-r", "master"]);
        let files = list.lines().filter(|line| !line.ends_with("config.json"));
        files.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(files(&scene.target), files(&scene.index));

    // Another user moves the branch.
    scene.target.commit().file("foreign", b"x").send();
    scene.publish("1.1.0");
    scene.wait_until_pushed("1.1.0");
    assert_eq!(scene.pushed("foreign"), None);
    scene.index.squash();
    scene.publish("1.2.0");
    scene.wait_until_pushed("1.2.0");
    let history = scene.target.git(&["rev-list", "--count", "master"]);
    assert!(history.parse::<usize>().unwrap() >= 4, "{history}");
}

#[test]
fn a_failed_push_is_retried_counted_and_shown_and_affects_nothing_else() {
    let scene = Scene::new();
    scene.target_server.set(Fault::Status(500));
    let settings = scene.settings(&format!("{USER}:{PASSWORD}"));
    let settings = settings.each_ref().map(|(name, value)| (*name, &**value));
    let program = Program::start(&settings);
    program.wait_until_ready();
    eventually("failures are counted", || {
        push_status(&program)["failures"].as_u64() >= Some(2)
    });
    let told = program.output();
    assert_eq!(told.matches("could not be pushed").count(), 1, "{told}");
    let commit = scene.publish("1.0.0");
    program.wait_for_commit(&commit);
    let status = push_status(&program);
    let error = status["last_error"].as_str().unwrap();
    assert!(error.contains("500"), "{error}");
    let report = program.get("/status");
    assert_eq!(report.json()["push"]["last_error"], *error);
    let report = report.text();

    scene.target_server.set(Fault::None);
    scene.wait_until_pushed("1.0.0");
    eventually("the failure is over", || {
        push_status(&program)["last_error"].is_null()
    });
    let seen = format!(
        "{}{report}{}{}",
        program.output(),
        program.get("/").text(),
        program.get("/readyz").text()
    );
    assert!(!seen.contains(USER) && !seen.contains(PASSWORD), "{seen}");
    assert!(seen.contains(&scene.target_server.url()), "{seen}");
}

#[test]
fn refused_credentials_are_a_failure_that_shows_no_secret() {
    let scene = Scene::new();
    let settings = scene.settings("wr0ng:p4ssw0rd");
    let settings = settings.each_ref().map(|(name, value)| (*name, &**value));
    let mirror = Mirror::start(&settings);
    mirror.wait_until_ready();
    eventually("the failure is shown", || {
        push_status(&mirror)["last_error"].is_string()
    });
    let status = push_status(&mirror).to_string();
    assert!(
        !status.contains("wr0ng") && !status.contains("p4ssw0rd"),
        "{status}"
    );
    assert_eq!(scene.pushed("config.json"), None);
}

#[test]
fn a_push_that_hangs_ends_when_the_mirror_stops() {
    let scene = Scene::new();
    scene.target_server.set(Fault::Hang);
    let settings = scene.settings(&format!("{USER}:{PASSWORD}"));
    let settings = settings.each_ref().map(|(name, value)| (*name, &**value));
    let mirror = Mirror::start(&settings);
    mirror.wait_until_ready();
    eventually("the push has begun", || {
        !scene.target_server.seen().is_empty()
    });
    let commit = scene.publish("1.0.0");
    mirror.wait_for_commit(&commit);
    assert!(scene.pushes() > 0);
    mirror.stop();
    eventually("no child of the push is left", || scene.pushes() == 0);
}

#[test]
fn without_a_git_program_nothing_is_pushed_and_the_status_says_so() {
    let scene = Scene::new();
    let nowhere = TempDir::new().unwrap();
    let settings = scene.settings(&format!("{USER}:{PASSWORD}"));
    let settings = settings.each_ref().map(|(name, value)| (*name, &**value));
    let mirror = Mirror::start_with(&settings, |config| {
        config.search_path = nowhere.path().into();
    });
    mirror.wait_until_ready();
    eventually("the failure is shown", || {
        let error = push_status(&mirror)["last_error"].clone();
        error
            .as_str()
            .is_some_and(|error| error.contains("no git program"))
    });
}
