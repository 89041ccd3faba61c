//! The mirror as the first process of a container.

use tempfile::TempDir;

use crate::support::{GitIndex, GitServer, Program, eventually, eventually_some, send_signal};

/// The numbers and names of the children of a process, zombies included.
fn children_of(parent: u32) -> Vec<(u32, String)> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let children = processes.filter_map(|process| {
        let path = process.ok()?.path();
        let stat = std::fs::read_to_string(path.join("stat")).ok()?;
        let (before, rest) = stat.rsplit_once(')')?;
        let is_child = rest.split_whitespace().nth(1) == Some(parent.to_string().as_str());
        let name = before.split_once('(')?.1.to_owned();
        is_child.then_some((path.file_name()?.to_str()?.parse().ok()?, name))
    });
    children.collect()
}

#[test]
fn process_1_reaps_orphans_passes_signals_on_and_ends_with_the_mirrors_exit_code() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let data = TempDir::new().unwrap();
    // The outer shell ends at once, so its child becomes a child of process 1.
    let script = "(sleep 1 &); exec \"$0\"";
    let started = Program::start_as_process_one(
        script,
        &[
            ("GIT_REPO_URL", &server.url()),
            ("DATA_DIR", data.path().to_str().unwrap()),
        ],
    );
    let Some(mut program) = started else {
        println!("skipped: the tests may not create a process namespace here");
        return;
    };
    program.wait_until_ready();
    let (process_one, _) = children_of(program.id()).pop().unwrap();
    let mirror = eventually_some("only the mirror is left", || {
        match &*children_of(process_one) {
            [(mirror, name)] if name.starts_with("crates-io") => Some(*mirror),
            _ => None,
        }
    });
    send_signal("HUP", process_one);
    assert_eq!(program.get("/livez").status, 200);
    send_signal("TERM", process_one);
    assert_eq!(program.wait_for_exit(), Some(0));
    eventually("no child is left", || {
        !std::path::Path::new(&format!("/proc/{mirror}")).exists()
    });
}
