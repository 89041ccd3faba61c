//! Reaps orphans when the program is the first process of a container.
//!
//! When a process ends, the system gives its children to process 1: for example those of a killed `git upload-pack`. They
//! stay zombies until process 1 waits for them, and too many zombies stop the system from starting processes. The mirror
//! cannot wait for all processes itself, because that would take the exit codes of its own children away from tokio. So
//! process 1 only waits, and runs the mirror as its child.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

/// The signals that are passed on to the mirror.
const SIGNALS: [(SignalKind, Signal); 6] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
];

/// A shell adds this to the number of the signal that ended a program.
const ENDED_BY_SIGNAL: i32 = 128;

/// If this is process 1, runs this program again as a child, and reaps until the child ends. Returns the child's exit code;
/// `None` if this process must do the work itself.
pub(crate) fn reap_as_process_one() -> Option<ExitCode> {
    if std::process::id() != 1 {
        return None;
    }
    // Without /proc the program cannot find itself. A mirror with zombies is better than none.
    let program = env::current_exe().ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime.block_on(async {
        // Before the child starts, so that no signal is missed.
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
                    // The child may just have ended.
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

/// Waits for all processes that have ended so far. Returns the status of the child, if it is one of them.
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
