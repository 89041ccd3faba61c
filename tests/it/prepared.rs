//! The programs that git starts in a data directory that an attacker has prepared, and the environment that git sees.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::git_served::GitClone;
use crate::support::{GitIndex, GitServer, Mirror, Program, eventually, index_line, index_path};

struct Scene {
    index: GitIndex,
    server: GitServer,
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
        Self {
            index,
            server,
            target,
            target_server,
            data: TempDir::new().unwrap(),
        }
    }

    fn settings(&self) -> [(&'static str, String); 4] {
        [
            ("GIT_REPO_URL", self.server.url()),
            ("DATA_DIR", self.data.path().to_str().unwrap().to_owned()),
            ("PUBLIC_URL", "http://mirror.example".to_owned()),
            ("INDEX_PUSH_URL", self.target_server.url()),
        ]
    }

    fn clone_dir(&self) -> PathBuf {
        let index = self.data.path().join("index");
        let current = fs::read_to_string(index.join("current")).unwrap();
        index.join(current)
    }

    fn publish(&self, version: &str) {
        let line = index_line("leaf", version, false);
        self.index.commit().crate_file("leaf", &line).send();
    }

    fn wait_until_pushed(&self, version: &str) {
        eventually("the index is pushed", || {
            let file = index_path("leaf");
            !self.target.git(&["for-each-ref"]).is_empty()
                && !self.target.git(&["ls-tree", "master", &file]).is_empty()
                && self
                    .target
                    .git(&["show", &format!("master:{file}")])
                    .contains(version)
        });
    }
}

fn borrowed<'s>(settings: &'s [(&'static str, String)]) -> Vec<(&'s str, &'s str)> {
    crate::support::borrowed(settings)
}

fn write_program(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_prepared_data_dir_makes_git_start_no_program() {
    let scene = Scene::new();
    let settings = scene.settings();
    let mirror = Mirror::start(&borrowed(&settings));
    scene.publish("1.0.0");
    scene.wait_until_pushed("1.0.0");
    mirror.stop();

    let traps = TempDir::new().unwrap();
    let marker = traps.path().join("marker");
    let script = format!("#!/bin/sh\necho \"$0\" >> {}\n", marker.display());
    let trap = traps.path().join("trap");
    write_program(&trap, &script);
    let (trap, target) = (trap.display(), scene.target_server.url());
    let config = format!(
        "[core]\n\trepositoryformatversion = 0\n\tbare = true\n\thooksPath = {0}/hooks\n\tfsmonitor = {trap}\n\
         \tsshCommand = {trap}\n\talternateRefsCommand = {trap}\n\tgitProxy = {trap}\n\taskPass = {trap}\n\
         [credential]\n\thelper = !{trap}\n[protocol \"ext\"]\n\tallow = always\n[uploadpack]\n\tpackObjectsHook = {trap}\n\
         [url \"ext::{trap} \"]\n\tinsteadOf = {target}\n[include]\n\tpath = {0}/more\n",
        traps.path().display()
    );
    fs::write(traps.path().join("more"), &config).unwrap();
    let clone = scene.clone_dir();
    for repository in [clone.clone(), clone.join("served")] {
        fs::write(repository.join("config"), &config).unwrap();
        fs::write(repository.join("config.worktree"), &config).unwrap();
        for hooks in [repository.join("hooks"), traps.path().join("hooks")] {
            for hook in ["pre-push", "reference-transaction", "post-update"] {
                write_program(&hooks.join(hook), &script);
            }
        }
    }

    let mirror = Mirror::start(&borrowed(&settings));
    scene.publish("1.1.0");
    scene.wait_until_pushed("1.1.0");
    let url = format!("http://{}/git/index", mirror.address);
    let clone = GitClone::of(&url, &[]);
    clone.git(&["fsck", "--full"]);
    mirror.stop();
    assert!(
        !marker.exists(),
        "started: {}",
        fs::read_to_string(&marker).unwrap()
    );
}

/// Only the removal of foreign configuration prevents this. In a push without credentials, git itself decides where to
/// get them.
#[test]
fn a_prepared_repository_cannot_name_the_program_that_git_asks_for_credentials() {
    let scene = Scene::new();
    let settings = scene.settings();
    let mirror = Mirror::start(&borrowed(&settings));
    scene.publish("1.0.0");
    scene.wait_until_pushed("1.0.0");
    mirror.stop();
    let traps = TempDir::new().unwrap();
    let marker = traps.path().join("marker");
    let trap = traps.path().join("trap");
    write_program(&trap, &format!("#!/bin/sh\ntouch {}\n", marker.display()));
    let config = format!(
        "[core]\n\trepositoryformatversion = 0\n\tbare = true\n[credential]\n\thelper = !{}\n",
        trap.display()
    );
    fs::write(scene.clone_dir().join("served/config"), config).unwrap();
    scene.target_server.require("bob", "s3cret");
    let mirror = Mirror::start(&borrowed(&settings));
    scene.publish("1.1.0");
    eventually("the push is refused", || {
        let ready = mirror.get("/readyz").json();
        ready["push"]["failures"].as_u64().unwrap_or(0) > 0
    });
    assert!(!marker.exists());
}

#[test]
fn a_repository_that_points_to_another_one_is_not_followed() {
    let scene = Scene::new();
    let settings = scene.settings();
    let mirror = Mirror::start(&borrowed(&settings));
    mirror.wait_for_git_commit(&scene.index.head());
    mirror.stop();
    // The repository whose settings git would use.
    let foreign = GitIndex::with_fixtures();
    let trap = TempDir::new().unwrap();
    let marker = trap.path().join("marker");
    let trap = trap.path().join("trap");
    write_program(&trap, &format!("#!/bin/sh\ntouch {}\n", marker.display()));
    foreign.git(&["config", "protocol.ext.allow", "always"]);
    let from = format!("url.ext::{} .insteadOf", trap.display());
    foreign.git(&["config", &from, &scene.target_server.url()]);
    let served = scene.clone_dir().join("served");
    fs::write(served.join("commondir"), foreign.path().to_str().unwrap()).unwrap();
    let mirror = Mirror::start(&borrowed(&settings));
    scene.publish("1.2.0");
    scene.wait_until_pushed("1.2.0");
    drop(mirror);
    assert!(!marker.exists());
}

#[test]
fn git_sees_no_secret_of_the_mirror_and_a_push_sees_proxies_and_certificates() {
    let scene = Scene::new();
    let programs = TempDir::new().unwrap();
    let dumps = programs.path().join("dumps");
    fs::create_dir(&dumps).unwrap();
    // `env` without `-0` is enough, because no value has a line break. git-remote-http gets the environment of git.
    let script = format!(
        "#!/bin/sh\nPATH=${{PATH#*:}}\nexport PATH\n{{ echo \"args $*\"; env; }} > {}/$$\nexec git \"$@\"\n",
        dumps.display()
    );
    write_program(&programs.path().join("git"), &script);
    #[expect(clippy::disallowed_methods, reason = "the directories of the real git")]
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", programs.path().display());
    let mut settings = scene.settings().to_vec();
    for (name, value) in [
        ("PATH", path.as_str()),
        ("AWS_SECRET_ACCESS_KEY", "s3cret-key"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "s3cret-file"),
        ("GIT_DIR", "/nonexistent/s3cret"),
        ("UNKNOWN_TO_THE_MIRROR", "s3cret-other"),
        ("no_proxy", "127.0.0.1"),
        ("SSH_AUTH_SOCK", "/nonexistent/agent"),
        ("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
        ("SSL_CERT_DIR", "/nonexistent/certificates"),
    ] {
        settings.push((name, value.to_owned()));
    }
    let program = Program::start(&borrowed(&settings));
    scene.publish("1.0.0");
    scene.wait_until_pushed("1.0.0");
    assert_eq!(
        program
            .get("/git/index/info/refs?service=git-upload-pack")
            .status,
        200
    );
    let dumped: Vec<String> = fs::read_dir(&dumps)
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let of = |what: &str| {
        let found = dumped.iter().filter(|dump| dump.contains(what));
        found.collect::<Vec<_>>()
    };
    let (pushes, answers) = (of(" push "), of("upload-pack"));
    assert!(!pushes.is_empty() && !answers.is_empty(), "{dumped:?}");
    for dump in &dumped {
        assert!(!dump.contains("s3cret"), "{dump}");
    }
    for push in pushes {
        for line in [
            "no_proxy=127.0.0.1",
            "SSH_AUTH_SOCK=/nonexistent/agent",
            "GIT_SSH_COMMAND=ssh -o BatchMode=yes",
            "SSL_CERT_DIR=/nonexistent/certificates",
            "HOME=",
        ] {
            assert!(push.contains(line), "{line}: {push}");
        }
    }
    for answer in answers {
        for name in ["no_proxy", "SSH_AUTH_SOCK", "SSL_CERT_DIR"] {
            assert!(!answer.contains(name), "{answer}");
        }
    }
}
