//! libgit2's process-wide settings, and a limit for its memory.
//!
//! This file has `unsafe` code (`memory` has some, too). Without it a silent peer would hold the fetch thread for ever:
//! libgit2 waits without limit until a time-out is set, and the only way to set one is its variadic `git_libgit2_opts`, unsafe because
//! it must not run beside other libgit2 calls. The test `a_silent_upstream_is_given_up_on` hangs without it.
//!
//! The same function sets the allocator. libgit2 allocates whatever size a pack claims, so ours refuses too much: an
//! object that is too large for one block, and a transfer that takes too much together. libgit2 handles the refusal like
//! any lack of memory, as an error of the class `NoMemory`.
#![expect(
    unsafe_code,
    reason = "libgit2's time-outs, User-Agent and allocator can be set in no other way; see above"
)]

use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use git2::{Binding, ObjectType, Odb, Oid};

use super::{proxied_http, retry_after};
use crate::index::limits::ReadError;

/// The largest block, unless said otherwise. It holds the largest object that is ever unpacked, and the largest table of
/// a fetch: 8 bytes for each of [`crate::index::limits::PACK_OBJECTS_MAX`] objects, at half the load.
const BLOCK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The largest block where this process makes a pack: a list with 104 bytes for each object, which grows by half. For a
/// million crates that is up to 220 MB.
const PACKING_BLOCK_BYTES_MAX: usize = 256 * 1024 * 1024;

/// All memory of one transfer. A clone of 250,000 crates takes 48 MB, most of it for lists of objects.
const TRANSFER_MEMORY_BYTES_MAX: usize = 384 * 1024 * 1024;

/// What transfers may leave behind, in the life of the process. libgit2 loses the object that it works on when the one
/// after it is refused.
const LOST_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Memory that libgit2 keeps after a transfer: tables and buffers. It is not lost.
const KEPT_BYTES: usize = 1024 * 1024;

static LOST_BYTES: AtomicUsize = AtomicUsize::new(0);

/// How much libgit2 may allocate on a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryLimit {
    block: usize,
    /// All blocks together; `None` does not count them.
    total: Option<usize>,
}

impl MemoryLimit {
    /// For what comes from others.
    pub(crate) const TRANSFER: Self = Self {
        block: BLOCK_BYTES_MAX,
        total: Some(TRANSFER_MEMORY_BYTES_MAX),
    };

    /// For packs that this process makes.
    pub(crate) const PACKING: Self = Self {
        block: PACKING_BLOCK_BYTES_MAX,
        total: None,
    };

    const ORDINARY: Self = Self {
        block: BLOCK_BYTES_MAX,
        total: None,
    };
}

thread_local! {
    static LIMIT: Cell<MemoryLimit> = const { Cell::new(MemoryLimit::ORDINARY) };
    /// What this thread has allocated and not freed since its limit was set.
    static USED: Cell<isize> = const { Cell::new(0) };
    /// Whether this thread has been refused a block since then.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Does something with libgit2 under this limit. Nothing that libgit2 allocates in it may be returned.
pub(crate) fn with_memory_limit<T>(limit: MemoryLimit, work: impl FnOnce() -> T) -> T {
    struct Restore(MemoryLimit);
    impl Drop for Restore {
        fn drop(&mut self) {
            let used = usize::try_from(USED.get()).unwrap_or(0);
            if LIMIT.replace(self.0).total.is_some() && used > KEPT_BYTES {
                LOST_BYTES.fetch_add(used, Ordering::Relaxed);
            }
        }
    }
    let _restore = Restore(LIMIT.replace(limit));
    USED.set(0);
    REFUSED.set(false);
    work()
}

/// Whether libgit2 wanted more memory than this thread may have, since its limit was set. libgit2 does not always say so: a
/// difference that it could not unpack is one whose base is missing.
pub(crate) fn has_refused_memory() -> bool {
    REFUSED.get()
}

/// Whether transfers have lost so much memory that there must be no more.
pub(crate) fn has_lost_too_much() -> bool {
    LOST_BYTES.load(Ordering::Relaxed) > LOST_BYTES_MAX
}

/// libgit2's `git_allocator`.
#[repr(C)]
struct Allocator {
    allocate: unsafe extern "C" fn(usize, *const c_char, c_int) -> *mut c_void,
    reallocate: unsafe extern "C" fn(*mut c_void, usize, *const c_char, c_int) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
}

/// Blocks come from the C library, as those of libgit2's own allocator do: what was allocated before can be freed here.
static ALLOCATOR: Allocator = Allocator {
    allocate,
    reallocate,
    free,
};

/// Whether there may be a block of this size, which takes so much more than before.
fn admits(block: usize, more: usize) -> bool {
    let limit = LIMIT.get();
    let fits = |total: usize| {
        let used = usize::try_from(USED.get()).unwrap_or(0);
        used.saturating_add(more) <= total
    };
    let admitted = block <= limit.block && limit.total.is_none_or(fits);
    if !admitted {
        REFUSED.set(true);
    }
    admitted
}

fn note(more: usize, less: usize) {
    if LIMIT.get().total.is_some() {
        // Blocks are never larger than the address space, half of which fits into the type.
        USED.set(
            USED.get()
                .wrapping_add_unsigned(more)
                .wrapping_sub_unsigned(less),
        );
    }
}

/// How large a block is. Not all systems tell; there only single blocks are limited.
///
/// # Safety
/// A block of the C library, or null.
unsafe fn size_of_block(block: *mut c_void) -> usize {
    #[cfg(target_os = "linux")]
    // SAFETY: as above; of null it is 0.
    return unsafe { libc::malloc_usable_size(block) };
    #[cfg(not(target_os = "linux"))]
    {
        let _unused = block;
        0
    }
}

unsafe extern "C" fn allocate(size: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
    if !admits(size, size) {
        return std::ptr::null_mut();
    }
    // SAFETY: any size may be asked for, and the size of what came may be, too.
    unsafe {
        let block = libc::malloc(size);
        note(size_of_block(block), 0);
        block
    }
}

unsafe extern "C" fn reallocate(
    old: *mut c_void,
    size: usize,
    _file: *const c_char,
    _line: c_int,
) -> *mut c_void {
    // SAFETY: libgit2 passes a block that it has from here or from the C library, or null.
    unsafe {
        let before = size_of_block(old);
        if !admits(size, size.saturating_sub(before)) {
            return std::ptr::null_mut();
        }
        let block = libc::realloc(old, size);
        if !block.is_null() {
            note(size_of_block(block), before);
        }
        block
    }
}

unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: as for `reallocate`.
    unsafe {
        note(0, size_of_block(block));
        libc::free(block);
    }
}

/// Checks an object's kind and size without unpacking it, and returns the size.
pub(crate) fn check_size(
    odb: &Odb<'_>,
    id: Oid,
    kind: ObjectType,
    bytes_max: usize,
) -> Result<usize, ReadError> {
    let (bytes, found) = read_header(odb, id)?;
    let Some(found) = found else {
        return Err(git2::Error::from_str("an object has no known kind").into());
    };
    if found != kind {
        // No damage: the author of a tree chooses the ids in it, and can name any object.
        return Err(ReadError::Refused(format!(
            "the object {id} is a {found}, not a {kind}"
        )));
    }
    if bytes > bytes_max {
        return Err(ReadError::TooLarge(format!(
            "the {kind} {id} has {bytes} bytes, and the mirror reads {bytes_max} at most"
        )));
    }
    Ok(bytes)
}

/// Returns the size and the kind of an object without unpacking it. The kind is `None` if it is unknown: a damaged pack can
/// cause that, and git2's own function panics there.
pub(crate) fn read_header(
    odb: &Odb<'_>,
    id: Oid,
) -> Result<(usize, Option<ObjectType>), git2::Error> {
    let mut bytes = 0;
    let mut kind = 0;
    // SAFETY: the database and the id outlive the call, and it writes only to the two numbers.
    let code = unsafe {
        libgit2_sys::git_odb_read_header(&raw mut bytes, &raw mut kind, odb.raw(), id.raw())
    };
    if code < 0 {
        return Err(git2::Error::last_error(code));
    }
    Ok((bytes, ObjectType::from_raw(kind)))
}

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
            // SAFETY of this one: libgit2 copies the table of functions, which have its signatures.
            libgit2_sys::git_libgit2_opts(
                libgit2_sys::GIT_OPT_SET_ALLOCATOR as c_int,
                &raw const ALLOCATOR,
            );
            retry_after::watch();
            // What a crash of the machine leaves must be whole: a git index with a gap would not be noticed here.
            libgit2_sys::git_libgit2_opts(
                libgit2_sys::GIT_OPT_ENABLE_FSYNC_GITDIR as c_int,
                1 as c_int,
            );
            // SAFETY of this one: no transport is in use yet.
            let _registered =
                git2::transport::register(proxied_http::SCHEME, proxied_http::transport);
            let contact_shown = contact.map_or_else(String::new, |contact| format!(" ({contact})"));
            proxied_http::configure(connect, silence, format!("{product}{contact_shown}"));
            for (option, text) in [
                (libgit2_sys::GIT_OPT_SET_USER_AGENT_PRODUCT, product),
                // libgit2 puts this one in brackets behind the product, and leaves it out when it is empty.
                (
                    libgit2_sys::GIT_OPT_SET_USER_AGENT,
                    contact.unwrap_or_default(),
                ),
            ] {
                if let Ok(text) = CString::new(text) {
                    libgit2_sys::git_libgit2_opts(option as c_int, text.as_ptr());
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use git2::{ErrorClass, ObjectType, Repository};

    use super::*;

    #[test]
    fn libgit2_gets_no_more_memory_than_its_thread_may_have() {
        let limit = Duration::from_secs(5);
        configure(limit, limit, "crates-io-mirror/test", None);
        let directory = tempfile::TempDir::new().unwrap();
        let git = Repository::init_bare(directory.path()).unwrap();
        let content = vec![b' '; 3 * 1024 * 1024];
        let id = git
            .odb()
            .unwrap()
            .write(ObjectType::Blob, &content)
            .unwrap();
        let small = |block, total| MemoryLimit { block, total };
        let read = |limit| {
            with_memory_limit(limit, || {
                let git = Repository::open_bare(directory.path()).unwrap();
                let read = git.find_blob(id).map(|blob| blob.size());
                (read.map_err(|error| error.class()), has_refused_memory())
            })
        };
        let mib = 1024 * 1024;
        let refused = (Err(ErrorClass::NoMemory), true);
        assert_eq!(read(small(2 * mib, None)), refused);
        assert_eq!(read(small(64 * mib, Some(2 * mib))), refused);
        // What was freed may be had again.
        for _ in 0..4 {
            let all = small(64 * mib, Some(8 * mib));
            assert_eq!(read(all), (Ok(content.len()), false));
        }
        assert_eq!(git.find_blob(id).unwrap().size(), content.len());
    }
}
