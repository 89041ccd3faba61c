//! How the C library's allocator treats blocks that were freed.
//!
//! glibc learns from the first large block that is freed to keep such blocks in its heaps, where they are seldom given
//! back. After five seconds of look-ups of the largest crate (an index file of 4.9 MB) the process kept 318 MB; with a
//! fixed threshold it kept 12 MB, at the same rate.
#![expect(
    unsafe_code,
    reason = "glibc's allocator can be told this in no other way; the gain is above"
)]

/// Blocks from this size on come from the system and go back to it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BLOCK_BYTES: libc::c_int = 128 * 1024;

/// Gives large blocks back to the system as soon as they are freed. Does nothing where the C library is another one.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` may be called at any time; both parameters are documented ones, and it keeps no pointers.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE_BLOCK_BYTES);
    }
}

/// Gives back to the system what was freed in the midst of what is still in use: after a clone of 250,000 crates that is
/// 40 MB of 65. Takes some milliseconds. Does nothing where the C library is another one.
pub(crate) fn return_freed_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
