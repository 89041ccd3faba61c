//! libgit2's process-wide settings.
//!
//! This is the one file with `unsafe` code. Without it a silent peer would hold the fetch thread for ever: libgit2 waits
//! without limit until a time-out is set, and the only way to set one is its variadic `git_libgit2_opts`, unsafe because
//! it must not run beside other libgit2 calls. The test `a_silent_upstream_is_given_up_on` hangs without it.
#![expect(
    unsafe_code,
    reason = "libgit2's time-outs and User-Agent can be set in no other way; see above"
)]

use std::ffi::CString;
use std::sync::Once;
use std::time::Duration;

/// How many packs may be open at a time, in the whole process.
const OPEN_PACKS_MAX: usize = 64;

static CONFIGURED: Once = Once::new();

/// Sets the time-outs of every libgit2 connection of this process, and the `User-Agent` that git servers see.
///
/// The first call wins; later ones change nothing, so that no call can run beside a fetch.
pub(crate) fn configure(
    connect: Duration,
    silence: Duration,
    product: &str,
    contact: Option<&str>,
) {
    CONFIGURED.call_once(|| {
        let milliseconds =
            |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `call_once` keeps all callers waiting until this is done, and every use of libgit2 in this process
        // comes after a call of this function. The strings are NUL-terminated and copied by libgit2.
        unsafe {
            // The getter makes git2 initialise libgit2 before anything is set.
            let _initialised = git2::opts::get_server_timeout_in_milliseconds();
            let _unsupported =
                git2::opts::set_server_connect_timeout_in_milliseconds(milliseconds(connect));
            let _unsupported =
                git2::opts::set_server_timeout_in_milliseconds(milliseconds(silence));
            // Each pack that was read from stays open, and every fetch adds one.
            let _unsupported = git2::opts::set_mwindow_file_limit(OPEN_PACKS_MAX);
            // Trees are read once, and index files are kept elsewhere.
            git2::opts::enable_caching(false);
            // The data directory belongs to whoever runs the mirror, also where a container maps users differently.
            let _unsupported = git2::opts::set_verify_owner_validation(false);
            // What a crash of the machine leaves must be whole: a git index with a gap would not be noticed here.
            libgit2_sys::git_libgit2_opts(
                libgit2_sys::GIT_OPT_ENABLE_FSYNC_GITDIR as libc::c_int,
                1 as libc::c_int,
            );
            for (option, text) in [
                (libgit2_sys::GIT_OPT_SET_USER_AGENT_PRODUCT, product),
                // libgit2 puts this one in brackets behind the product, and leaves it out when it is empty.
                (
                    libgit2_sys::GIT_OPT_SET_USER_AGENT,
                    contact.unwrap_or_default(),
                ),
            ] {
                if let Ok(text) = CString::new(text) {
                    libgit2_sys::git_libgit2_opts(option as libc::c_int, text.as_ptr());
                }
            }
        }
    });
}
