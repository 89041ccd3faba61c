//! SIGKILL while files are being fetched and stored.

use super::*;
use crate::support::Program;

/// So large that a part of the file is on the disk before the kill.
const LARGE_LENGTH: usize = 11 * 512 * 1024;

fn program(origin: &Origin, data: &TempDir) -> Program {
    let own = origin.settings();
    let mut settings = borrowed(&own);
    settings.push(("DATA_DIR", data.path().to_str().unwrap()));
    let program = Program::start(&settings);
    program.wait_until_ready();
    program
}

#[test]
fn an_incomplete_file_of_a_killed_process_is_never_found() {
    let large = CrateFile::noise("large", "1.0.0", 1, LARGE_LENGTH);
    let origin = Origin::with(vec![large]);
    let file = &origin.files[0];
    let data = TempDir::new().unwrap();
    let store = data.path().join("crates");
    origin.upstream.fail(UpstreamFault::HangsMidBody);
    let first = program(&origin, &data);
    std::thread::scope(|threads| {
        let path = file.download_path();
        let client = Client::new(first.address);
        let asking = threads.spawn(move || client.try_request("GET", &path, &[]));
        eventually("a part of the file is on the disk", || {
            let held = StoredFiles::look(&store);
            assert!(held.checksums.is_empty(), "{held:?}");
            !held.staged.is_empty()
        });
        first.kill();
        assert!(asking.join().unwrap().is_err(), "the client got an answer");
    });
    let left = StoredFiles::look(&store);
    assert!(left.checksums.is_empty() && !left.staged.is_empty());

    origin.upstream.heal();
    let second = program(&origin, &data);
    eventually("the incomplete file is removed", || {
        StoredFiles::look(&store).staged.is_empty()
    });
    assert_serves(&second, file);
    wait_until_stored(&store, file);
    assert!(StoredFiles::look(&store).staged.is_empty());
}

#[test]
fn kills_at_any_moment_leave_no_wrong_file() {
    const FILES: usize = 40;
    let origin = Origin::of(FILES);
    let data = TempDir::new().unwrap();
    let store = data.path().join("crates");
    for round in 1..=4 {
        let running = program(&origin, &data);
        let client = Client::new(running.address);
        std::thread::scope(|threads| {
            for thread in 0..4 {
                let files = &origin.files;
                threads.spawn(move || {
                    for file in files.iter().skip(thread).step_by(4) {
                        // Answers are right until the kill. After it there are none.
                        let answer = client.try_request("GET", &file.download_path(), &[]);
                        let Ok(answer) = answer else { return };
                        assert_eq!(answer.status, 200, "{answer:?}");
                        assert!(answer.body == file.bytes());
                    }
                });
            }
            let enough = FILES * round / 5;
            eventually("some files are stored", || {
                StoredFiles::look(&store).checksums.len() >= enough
            });
            running.kill();
        });
        println!(
            "round {round}: {} held",
            StoredFiles::look(&store).checksums.len()
        );
    }
    let last = program(&origin, &data);
    for file in &origin.files {
        assert_serves(&last, file);
    }
    eventually("exactly the files of the upstream are stored", || {
        let held = StoredFiles::look(&store);
        held.staged.is_empty() && held.checksums.len() == FILES
    });
}
