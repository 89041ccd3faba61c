//! Whether the process was started with a standard output.
//!
//! If standard output is closed (`>&-`), Rust's standard library opens `/dev/null` in its place before `main`, and output is
//! lost without an error. So this checks before the standard library does, and later writes report the error.
#![expect(
    unsafe_code,
    reason = "nothing else runs before the standard library does; the function makes one system call"
)]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, fcntl_getfd};

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// The C library calls the functions in this section before `main`.
#[cfg(target_os = "linux")]
#[used]
// SAFETY: the section holds pointers to functions of this kind, and this one needs nothing that `main` would set up.
#[unsafe(link_section = ".init_array")]
static LOOK_BEFORE_MAIN: extern "C" fn() = look;

#[cfg(target_os = "linux")]
extern "C" fn look() {
    let is_closed = fcntl_getfd(rustix::stdio::stdout()) == Err(Errno::BADF);
    WAS_CLOSED.store(is_closed, Ordering::Relaxed);
}

/// Fails if the process was started with standard output closed. Only Linux can tell.
///
/// # Errors
/// The error of a write to a closed descriptor.
pub(crate) fn check() -> io::Result<()> {
    if WAS_CLOSED.load(Ordering::Relaxed) {
        Err(Errno::BADF.into())
    } else {
        Ok(())
    }
}

/// The message for the operator, in one line.
pub(crate) fn cannot_be_written(error: &io::Error) -> String {
    format!("standard output cannot be written: {error}")
}
