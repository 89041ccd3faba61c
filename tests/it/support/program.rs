//! The mirror as a separate process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::disk::{Disk, DiskMade, as_seen_by};
use super::{Client, eventually, eventually_some, hermetic};

/// Heroku kills a process that takes longer to stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// A user without files.
const NOBODY: u32 = 65_534;

/// A running program. Dropping it kills it.
pub(crate) struct Program {
    client: Client,
    child: Child,
    output: Arc<Mutex<String>>,
    _home: TempDir,
}

impl Program {
    /// Starts the program with these settings, and waits until it listens.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::spawn(settings, env!("CARGO_BIN_EXE_crates-io-mirror"), &[])
    }

    /// Like [`Program::start`], on a system that refuses to write more than 8 KiB into any file, like a full disk.
    pub(crate) fn start_on_full_disk(settings: &[(&str, &str)]) -> Self {
        // The signal is ignored, so that the program gets an error.
        let script = "trap '' XFSZ; ulimit -f 16; exec \"$0\"";
        Self::spawn(
            settings,
            "sh",
            &["-c", script, env!("CARGO_BIN_EXE_crates-io-mirror")],
        )
    }

    /// Starts the program, and reads its log only until it listens. Then the pipe fills, and stays full.
    pub(crate) fn start_with_unread_log(settings: &[(&str, &str)]) -> Self {
        let home = TempDir::new().unwrap();
        let child = command(env!("CARGO_BIN_EXE_crates-io-mirror"), &home, settings).spawn();
        Self::watch(child.unwrap(), home, Reader::StopsOnceItListens)
    }

    /// Like [`Program::start`], in a process namespace of its own, where the last program of the script is process 1.
    /// Returns `None` if the system does not allow such a namespace.
    pub(crate) fn start_as_process_one(script: &str, settings: &[(&str, &str)]) -> Option<Self> {
        let unshare = [
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
        ];
        // Root needs no user namespace, and may not be allowed to have one.
        let ways = [&unshare[2..], &unshare[..]];
        let is_allowed = |way: &&&[&str]| {
            let tried = Command::new("unshare").args(**way).arg("true").output();
            tried.is_ok_and(|tried| tried.status.success())
        };
        let way = ways.iter().find(is_allowed)?;
        let program = env!("CARGO_BIN_EXE_crates-io-mirror");
        let arguments = [way, &["sh", "-c", script, program][..]].concat();
        Some(Self::spawn(settings, "unshare", &arguments))
    }

    /// Like [`Program::start`], with a standard output that the tests do not read. A shell script starts the program as
    /// `$0`.
    pub(crate) fn start_unread(script: &str, stdout: Stdio, settings: &[(&str, &str)]) -> Self {
        let home = TempDir::new().unwrap();
        let mut command = command("sh", &home, settings);
        let program = env!("CARGO_BIN_EXE_crates-io-mirror");
        command.args(["-c", script, program]).stdout(stdout);
        Self::run_with(command, home)
    }

    /// Runs the program to its end, with a shell script that starts it as `$0`.
    pub(crate) fn run_by(script: &str, stdout: Stdio, settings: &[(&str, &str)]) -> Output {
        let home = TempDir::new().unwrap();
        let program = env!("CARGO_BIN_EXE_crates-io-mirror");
        let mut command = command("sh", &home, settings);
        ended(
            command
                .args(["-c", script, program])
                .stdout(stdout)
                .spawn()
                .unwrap(),
        )
    }

    /// Like [`Program::start`], with a limit for open files and connections.
    pub(crate) fn start_with_files_max(files_max: u32, settings: &[(&str, &str)]) -> Self {
        let script = format!("ulimit -n {files_max}; exec \"$0\"");
        let program = env!("CARGO_BIN_EXE_crates-io-mirror");
        Self::spawn(settings, "sh", &["-c", &script, program])
    }

    /// Starts the program with a faulty disk at this directory, and returns how the disk was made.
    pub(crate) fn start_on(
        disk: Disk,
        directory: &Path,
        settings: &[(&str, &str)],
    ) -> (Self, DiskMade) {
        let home = TempDir::new().unwrap();
        let program = env!("CARGO_BIN_EXE_crates-io-mirror");
        let (command, made) = disk.command(directory, program, home.path());
        (
            Self::run_with(configured(command, &home, settings), home),
            made,
        )
    }

    /// Like [`Program::start`], where the program can read this directory and everything in it, and cannot write there.
    pub(crate) fn start_without_write_access(directory: &Path, settings: &[(&str, &str)]) -> Self {
        let home = TempDir::new().unwrap();
        if !rustix::process::geteuid().is_root() {
            let chmod = Command::new("chmod")
                .args(["-R", "a-w"])
                .arg(directory)
                .status();
            assert!(chmod.unwrap().success());
            return Self::run_with(
                command(env!("CARGO_BIN_EXE_crates-io-mirror"), &home, settings),
                home,
            );
        }
        // Root ignores permissions. So the program runs as another user, who can reach only what is open to everybody.
        for open in [directory, home.path()] {
            let mode = if open == directory { 0o755 } else { 0o777 };
            std::fs::set_permissions(open, PermissionsExt::from_mode(mode)).unwrap();
        }
        let program = home.path().join("program");
        // Not copied by this process: another test could start a child at that moment, which would keep the copy open
        // for writing.
        let copy = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_crates-io-mirror"))
            .arg(&program)
            .status();
        assert!(copy.unwrap().success());
        let mut command = command(program.to_str().unwrap(), &home, settings);
        command.uid(NOBODY).gid(NOBODY).env("TMPDIR", home.path());
        Self::run_with(command, home)
    }

    fn spawn(settings: &[(&str, &str)], program: &str, arguments: &[&str]) -> Self {
        let home = TempDir::new().unwrap();
        let mut command = command(program, &home, settings);
        command.args(arguments);
        Self::run_with(command, home)
    }

    fn run_with(mut command: Command, home: TempDir) -> Self {
        Self::watch(command.spawn().unwrap(), home, Reader::ReadsAll)
    }

    fn watch(mut child: Child, home: TempDir, reader: Reader) -> Self {
        let output = Arc::new(Mutex::new(String::new()));
        let is_read = child.stdout.is_some();
        if let Some(stdout) = child.stdout.take() {
            collect(stdout, &output, reader);
        }
        collect(child.stderr.take().unwrap(), &output, Reader::ReadsAll);
        let address = eventually_some("the program listens", || {
            let output = output.lock().unwrap();
            assert!(child.try_wait().unwrap().is_none(), "it ended: {output}");
            if !is_read {
                return listens_at(child.id());
            }
            output.lines().find_map(|line| {
                let event: serde_json::Value = serde_json::from_str(line).ok()?;
                event.get("net.address")?.as_str()?.parse().ok()
            })
        });
        Self {
            client: Client::new(address),
            child,
            output,
            _home: home,
        }
    }

    /// Runs the program until it ends by itself.
    pub(crate) fn run(settings: &[(&str, &str)]) -> Output {
        Self::run_verb(&[], settings)
    }

    /// Runs the program with these arguments until it ends by itself.
    pub(crate) fn run_verb(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
        Self::run_verb_until(arguments, settings, |_child| ())
    }

    /// Runs the program with these arguments, and sends SIGTERM as soon as `condition` holds.
    pub(crate) fn stop_verb_when(
        arguments: &[&str],
        settings: &[(&str, &str)],
        condition: impl Fn() -> bool,
    ) -> Output {
        Self::run_verb_until(arguments, settings, |child| {
            eventually("the condition for SIGTERM", condition);
            terminate(child);
        })
    }

    /// Runs the program with these arguments, and sends SIGKILL as soon as `condition` holds.
    pub(crate) fn kill_verb_when(
        arguments: &[&str],
        settings: &[(&str, &str)],
        condition: impl Fn() -> bool,
    ) -> Output {
        Self::run_verb_until(arguments, settings, |child| {
            eventually("the condition for SIGKILL", condition);
            send_signal("KILL", child.id());
        })
    }

    /// Runs the program twice. The output of the first is the input of the second.
    pub(crate) fn run_verbs_in_a_pipe(
        from: (&[&str], &[(&str, &str)]),
        to: (&[&str], &[(&str, &str)]),
    ) -> [Output; 2] {
        let home = TempDir::new().unwrap();
        let program = env!("CARGO_BIN_EXE_crates-io-mirror");
        let mut from = command(program, &home, from.1)
            .args(from.0)
            .spawn()
            .unwrap();
        let to = command(program, &home, to.1)
            .args(to.0)
            .stdin(from.stdout.take().unwrap())
            .spawn()
            .unwrap();
        [from, to].map(ended)
    }

    /// Runs the program with these arguments and this input, which does not end. Sends SIGTERM as soon as `condition`
    /// holds.
    pub(crate) fn stop_verb_fed_with(
        arguments: &[&str],
        settings: &[(&str, &str)],
        input: &[u8],
        condition: impl Fn() -> bool,
    ) -> Output {
        let home = TempDir::new().unwrap();
        let program = env!("CARGO_BIN_EXE_crates-io-mirror");
        let mut child = command(program, &home, settings)
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).unwrap();
        eventually("the condition for SIGTERM", condition);
        terminate(&child);
        let output = ended(child);
        drop(stdin);
        output
    }

    fn run_verb_until(
        arguments: &[&str],
        settings: &[(&str, &str)],
        meanwhile: impl FnOnce(&Child),
    ) -> Output {
        let home = TempDir::new().unwrap();
        let program = env!("CARGO_BIN_EXE_crates-io-mirror");
        let child = command(program, &home, settings)
            .args(arguments)
            .spawn()
            .unwrap();
        meanwhile(&child);
        ended(child)
    }

    /// The output of the program so far, from both streams.
    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// The request events so far.
    pub(crate) fn request_events(&self) -> Vec<serde_json::Value> {
        let output = self.output();
        let events = output.lines().filter_map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).ok()?;
            (event["target"] == "crates_io_mirror::request").then_some(event)
        });
        events.collect()
    }

    /// The resident memory of the program, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The anonymous memory of the program, in KiB: without pages of files, which the system can drop.
    pub(crate) fn anonymous_kib(&self) -> u64 {
        self.status_kib("RssAnon:")
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.unwrap().parse().unwrap()
    }

    /// The processor time that the program has used so far.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name in brackets can contain anything. The eleventh and twelfth fields after the state are ticks of 10
        // ms.
        let (_name, fields) = stat.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    }

    /// A directory as the program sees it.
    pub(crate) fn sees(&self, directory: &Path) -> PathBuf {
        as_seen_by(self.child.id(), directory)
    }

    /// The number of children of the program, zombies included.
    pub(crate) fn children(&self) -> usize {
        let parent = self.child.id().to_string();
        let processes = std::fs::read_dir("/proc").unwrap();
        let of_ours = processes.filter(|process| {
            // Other processes start and end in the meantime.
            let path = process.as_ref().unwrap().path().join("stat");
            let stat = std::fs::read_to_string(path).unwrap_or_default();
            // The name in brackets can contain anything. The state and the parent follow it.
            let parent_of_it = stat
                .rsplit_once(')')
                .and_then(|(_name, rest)| rest.split_whitespace().nth(1));
            parent_of_it == Some(parent.as_str())
        });
        of_ours.count()
    }

    /// The id of its process, or of the process that started it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGHUP.
    pub(crate) fn hang_up(&self) {
        send_signal("HUP", self.child.id());
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        terminate(&self.child);
    }

    /// Sends SIGKILL, and waits for the end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end after SIGTERM, and returns the exit code.
    pub(crate) fn wait_for_exit(&mut self) -> Option<i32> {
        let began = Instant::now();
        let status = eventually_some("the program ends", || self.child.try_wait().unwrap());
        let waited = began.elapsed();
        println!("ended after {waited:?}");
        assert!(waited < STOP_TIME_MAX, "{waited:?}");
        status.code()
    }
}

impl Deref for Program {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            // A failed test shows the output.
            println!("output of the program:\n{}", self.output());
        }
    }
}

/// Waits until a program ends by itself.
fn ended(mut child: Child) -> Output {
    eventually_some("the program ends", || child.try_wait().unwrap());
    child.wait_with_output().unwrap()
}

fn terminate(child: &Child) {
    send_signal("TERM", child.id());
}

/// Sends a signal to a process.
pub(crate) fn send_signal(name: &str, process: u32) {
    // Without unsafe code, a shell has to send the signal.
    let kill = format!("kill -{name} {process}");
    let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(status.success());
}

fn command(program: &str, home: &TempDir, settings: &[(&str, &str)]) -> Command {
    configured(hermetic(program, home.path()), home, settings)
}

fn configured(mut command: Command, home: &TempDir, settings: &[(&str, &str)]) -> Command {
    command
        .current_dir(home.path())
        .env("BIND_ADDRESS", "127.0.0.1")
        .env("PORT", "0")
        .env("LOG_FORMAT", "json")
        .env("REFRESH_INTERVAL_SECS", "1")
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The address that a process listens on, as the system reports it.
fn listens_at(process: u32) -> Option<SocketAddr> {
    let open_files = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    let open_files: Vec<String> = open_files
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    let sockets = std::fs::read_to_string(format!("/proc/{process}/net/tcp")).ok()?;
    let mut listening = sockets.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // 0A is the state of a listening socket.
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let is_its = *state == "0A" && open_files.contains(&format!("socket:[{inode}]"));
        let port = u16::from_str_radix(local.split_once(':')?.1, 16).ok()?;
        is_its.then(|| SocketAddr::from(([127, 0, 0, 1], port)))
    });
    listening.next()
}

/// How much of a stream is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    ReadsAll,
    StopsOnceItListens,
}

fn collect(stream: impl Read + Send + 'static, output: &Arc<Mutex<String>>, kind: Reader) {
    let output = Arc::clone(output);
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            output
                .lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&line));
            let listens = line.windows(11).any(|at| at == b"net.address");
            if listens && kind == Reader::StopsOnceItListens {
                // The pipe stays open until the end of the tests.
                std::mem::forget(reader);
                return;
            }
            line.clear();
        }
    });
}
