//! Whether the process was started with a standard output.
//!
//! Rust's standard library puts `/dev/null` in the place of one that is closed (`>&-`), before `main`. What is written
//! there is lost without an error, so this looks earlier, and writes report what they would without that.
#![expect(
    unsafe_code,
    reason = "nothing else runs before the standard library does; the function makes one system call"
)]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, fcntl_getfd};

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// The C library calls what stands in this section before `main`.
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

/// Fails if the process was started with its standard output closed. Elsewhere than on Linux that is not known.
///
/// # Errors
/// What writing to it would have said.
pub(crate) fn check() -> io::Result<()> {
    if WAS_CLOSED.load(Ordering::Relaxed) {
        Err(Errno::BADF.into())
    } else {
        Ok(())
    }
}

/// The one line for whoever started the process.
pub(crate) fn cannot_be_written(error: &io::Error) -> String {
    format!("standard output cannot be written: {error}")
}
