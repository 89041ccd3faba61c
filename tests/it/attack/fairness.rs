//! One client cannot take all permits, connections or turns from other clients.

use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::support::{Answer, Http2Attacker, connect_from, peer, request_from};

/// The longest that another client may wait. An idle machine needs much less.
const OTHERS_WAIT_MAX: Duration = Duration::from_secs(8);

/// How many bytes a slow reader takes of each answer in a second.
const SLOW_PACE: u32 = 800;

/// The limit of open files for a mirror with few of them.
const FILES_MAX: u32 = 600;

/// Fetches the git index from the address of `source`. The answer must begin in time.
#[track_caller]
pub(super) fn fetch(scene: &Scene, source: u8, headers: &[(&str, &str)], want: &[u8]) -> Answer {
    let headers = [&[GIT_REQUEST], headers].concat();
    asked_in_time(scene, source, ("POST", UPLOAD_PACK), &headers, want)
}

#[track_caller]
fn asked_in_time(
    scene: &Scene,
    source: u8,
    request: (&str, &str),
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let began = Instant::now();
    let answer = request_from(peer(source), scene.program.address, request, headers, body);
    let (answer, waited) = (answer.unwrap(), began.elapsed());
    println!(
        "{request:?} of peer {source}: {} after {waited:?}",
        answer.status
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(waited < OTHERS_WAIT_MAX, "{waited:?}");
    answer
}

#[test]
fn slow_readers_do_not_keep_large_answers_from_another_peer() {
    let names = ["slow-one", "slow-two", "slow-three"];
    // 27 such answers are more than all answers together may take.
    let versions = names.map(|name| (name, 10_000));
    let scene = Scene::with(Vec::new(), &versions, &[]);
    let slow = names.map(index_path);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut clients: Vec<Http2Attacker> = (0..2)
            .map(|_| Http2Attacker::connect(peer(GREEDY), scene.program.address, SLOW_PACE))
            .collect();
        // Files as long as those of the other peer fill the space that the longer ones leave.
        let filling: Vec<String> = (0..27).map(|number| index_path(&large(number))).collect();
        for (client, paths) in clients.iter_mut().zip([&slow[..], &filling]) {
            client.get(paths.iter().map(String::as_str).cycle().take(27));
            let until = Instant::now() + Duration::from_secs(11);
            client.read_until(until, |client| client.settled >= 27);
        }
        let is_done = &is_done;
        for mut client in clients {
            scope.spawn(move || {
                while !is_done.load(Ordering::SeqCst) {
                    let second = Instant::now() + Duration::from_secs(1);
                    client.read_until(second, |_| is_done.load(Ordering::SeqCst));
                    client.grant(SLOW_PACE);
                }
                println!("a slow reader saw {:?}", client.statuses);
            });
        }
        // The slow readers must end even if this fails.
        let asking = catch_unwind(AssertUnwindSafe(|| {
            for number in 0..LARGE_INDEX_FILES {
                let name = large(number);
                asked_in_time(&scene, OTHER, ("GET", &index_path(&name)), &[], &[]);
                if number % 8 == 0 {
                    let path = format!("/api/v1/crates/{name}");
                    asked_in_time(&scene, OTHER, ("GET", &path), &[], &[]);
                }
            }
        }));
        is_done.store(true, Ordering::SeqCst);
        asking.unwrap();
    });
}

#[test]
fn stalled_git_requests_of_one_peer_do_not_block_another_peer() {
    let scene = Scene::with(Vec::new(), &[], &[]);
    let want = scene.want_everything();
    let mut greedy = Http2Attacker::connect(peer(GREEDY), scene.program.address, 0);
    greedy.post(UPLOAD_PACK, &[GIT_REQUEST], &want, true, 6);
    eventually("git children run", || scene.program.children() >= 2);
    for _ in 0..3 {
        let answer = fetch(&scene, OTHER, &[], &want);
        assert!(answer.body.len() > LARGE_INDEX_FILE_BYTES);
        asked_in_time(&scene, OTHER, ("GET", REFS), &[], &[]);
    }
    drop(greedy);
    eventually("no child is left", || scene.program.children() == 0);
}

#[test]
fn peers_behind_a_trusted_proxy_have_shares_of_their_own() {
    let scene = Scene::with(Vec::new(), &[], &[("TRUSTED_PROXIES", "127.0.0.9")]);
    let want = scene.want_everything();
    let mut greedy = Http2Attacker::connect(peer(9), scene.program.address, 0);
    let headers = [GIT_REQUEST, ("x-forwarded-for", "192.0.2.1")];
    greedy.post(UPLOAD_PACK, &headers, &want, true, 6);
    eventually("git children run", || scene.program.children() >= 2);
    for _ in 0..2 {
        fetch(&scene, 9, &[("x-forwarded-for", "192.0.2.2")], &want);
    }
}

#[test]
fn idle_connections_do_not_keep_out_others_when_open_files_are_few() {
    let scene = Scene::start(Vec::new(), &[], &[], |settings| {
        Program::start_with_files_max(FILES_MAX, settings)
    });
    let address = scene.program.address;
    let mut silent: Vec<TcpStream> = Vec::new();
    for count in [100, usize::try_from(FILES_MAX).unwrap() + 100] {
        // A connection that the mirror does not accept waits in the kernel. It gets no answer, either.
        let more =
            (silent.len()..count).map_while(|_| connect_from(peer(GREEDY), address, None).ok());
        silent.extend(more);
        println!("{} silent connections", silent.len());
        for _ in 0..3 {
            for path in ["/livez", "/readyz", &index_path(&large(0))] {
                asked_in_time(&scene, OTHER, ("GET", path), &[], &[]);
            }
        }
    }
}

#[test]
fn an_unlisted_version_is_looked_up_in_a_large_index_file_once() {
    // The largest real index file has 4.5 MB, too.
    let scene = Scene::with(Vec::new(), &[("huge", 30_000)], &[]);
    let ask = |number: usize| {
        let path = format!("/api/v1/crates/huge/9.9.{number}/download");
        let began = Instant::now();
        assert_eq!(scene.program.get(&path).status, 404);
        began.elapsed()
    };
    let first = ask(0);
    let rest: Duration = (1..31).map(ask).sum();
    println!("the first look-up took {first:?}, 30 more took {rest:?}");
    assert!(rest < 6 * first, "{rest:?} after {first:?}");
}
