//! What the first process of a container has to do beside serving: take note of the end of every orphan.
//!
//! The system gives the children of processes that have ended to process 1, for example what a killed `git upload-pack`
//! had started. Unless that waits for them they stay zombies, until there can be no more processes. A mirror that waited
//! for all processes itself would take the exit codes of its own children away from tokio. So process 1 only waits, and
//! runs the mirror as its child.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

/// What is passed on to the mirror.
const SIGNALS: [(SignalKind, Signal); 6] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
];

/// What a shell adds to the number of the signal that ended a program.
const ENDED_BY_SIGNAL: i32 = 128;

/// Runs this program once more as a child and reaps until that ends, if this is process 1. Returns its exit code; `None`
/// where this process has to do the work itself.
pub(crate) fn reap_as_process_one() -> Option<ExitCode> {
    if std::process::id() != 1 {
        return None;
    }
    // Without /proc the program does not know where it is: better a mirror with zombies than none.
    let program = env::current_exe().ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime.block_on(async {
        // All of them before there is a child, so that none is missed.
        let mut children = signal(SignalKind::child()).ok()?;
        let passed_on = SIGNALS.map(|(kind, number)| Some((signal(kind).ok()?, number)));
        let mut arguments = env::args_os();
        let mut command = Command::new(program);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        let child = Pid::from_child(&command.args(arguments).spawn().ok()?);
        for (mut received, number) in passed_on.into_iter().flatten() {
            tokio::spawn(async move {
                while received.recv().await.is_some() {
                    // One that has just ended needs no signal.
                    let _ended = kill_process(child, number);
                }
            });
        }
        loop {
            if let Some(status) = reap(child) {
                return Some(exit_code(status));
            }
            children.recv().await?;
        }
    })
}

/// Takes note of everything that has ended so far. Returns how this child ended, if it did.
fn reap(child: Pid) -> Option<WaitStatus> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((process, status))) if process == child => ended = Some(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return ended,
        }
    }
}

fn exit_code(status: WaitStatus) -> ExitCode {
    let by_signal = || {
        status
            .terminating_signal()
            .map(|number| ENDED_BY_SIGNAL + number)
    };
    let code = status.exit_status().or_else(by_signal);
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
