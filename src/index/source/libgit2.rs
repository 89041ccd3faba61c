//! libgit2's process-wide settings, a limit for its memory, and checks of objects.
//!
//! This file has `unsafe` code; `ARCHITECTURE.md` names the others that have. The reason: libgit2 waits without limit for an unresponsive
//! upstream until a time-out is set, and only its variadic function `git_libgit2_opts` sets one. That function is
//! unsafe because it must not run at the same time as other libgit2 calls. The test
//! `an_unresponsive_upstream_times_out` hangs without it.
//!
//! The same function sets the allocator. libgit2 allocates any size that a pack claims. Our allocator refuses an object
//! that is too large for one block, and a transfer that takes too much in total. libgit2 reports the refusal as an
//! error of the class `NoMemory`.
#![expect(
    unsafe_code,
    reason = "libgit2's time-outs, User-Agent and allocator can be set in no other way; see above"
)]

use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use git2::{Binding, ConfigLevel, ObjectType, Odb, Oid};

use super::{proxied_http, retry_after};
use crate::index::limits::{INDEX_FILE_BYTES_MAX, ReadError};

/// The largest block by default. It is large enough for the largest object that the mirror unpacks, and for the largest
/// table of a fetch: 8 bytes for each of [`crate::index::limits::PACK_OBJECTS_MAX`] objects, half full.
const BLOCK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The largest block while this process makes a pack. The largest is a list with 104 bytes for each object, which grows
/// by half. A million crates need up to 220 MB.
const PACKING_BLOCK_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The memory of one transfer. A clone of 250,000 crates takes 48 MB, most of it for lists of objects.
const TRANSFER_MEMORY_BYTES_MAX: usize = 384 * 1024 * 1024;

/// The memory that refused transfers may leak in the life of the process. libgit2 leaks the current object when the
/// allocation for the next one is refused.
const LOST_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Memory that libgit2 keeps for reuse after a transfer: tables and buffers. It is not leaked.
const KEPT_BYTES: usize = 1024 * 1024;

static LOST_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The memory that libgit2 may allocate on a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryLimit {
    block: usize,
    /// The sum of all blocks; `None` for no limit.
    total: Option<usize>,
}

impl MemoryLimit {
    /// For packs from an upstream or an archive.
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
    /// The bytes that this thread has allocated and not freed since its limit was set. Negative if it freed older
    /// blocks.
    static USED: Cell<isize> = const { Cell::new(0) };
    /// Whether the allocator has refused a block since then.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Runs work with libgit2 under this limit. It must not return anything that libgit2 allocated: that would count as
/// leaked.
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

/// Whether the allocator has refused memory since the limit of this thread was set. libgit2 does not always report
/// that: for example it reports a delta that it could not unpack as a delta with a missing base.
pub(crate) fn has_refused_memory() -> bool {
    REFUSED.get()
}

/// Whether transfers have leaked so much memory that the mirror must not start another.
pub(super) fn has_lost_too_much() -> bool {
    LOST_BYTES.load(Ordering::Relaxed) > LOST_BYTES_MAX
}

/// libgit2's `git_allocator`.
#[repr(C)]
struct Allocator {
    allocate: unsafe extern "C" fn(usize, *const c_char, c_int) -> *mut c_void,
    reallocate: unsafe extern "C" fn(*mut c_void, usize, *const c_char, c_int) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
}

/// Uses the C library, as libgit2's own allocator does. So it can free blocks that were allocated before it was set.
static ALLOCATOR: Allocator = Allocator {
    allocate,
    reallocate,
    free,
};

/// Whether a block of this size is allowed, if it takes `more` bytes than before.
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
        // No overflow in practice: no block is larger than half of the address space, which is the range of the type.
        USED.set(
            USED.get()
                .wrapping_add_unsigned(more)
                .wrapping_sub_unsigned(less),
        );
    }
}

/// The size of a block. Not all systems tell it; on the others only single blocks are limited.
///
/// # Safety
/// A block of the C library, or null.
unsafe fn size_of_block(block: *mut c_void) -> usize {
    #[cfg(target_os = "linux")]
    // SAFETY: as above; the size of null is 0.
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
    // SAFETY: `malloc` accepts any size, and `size_of_block` accepts its result, null included.
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
    // SAFETY: libgit2 passes null, or a block from this allocator or the C library.
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

/// Reads a file, to find damage. Skips files larger than an index file may be: the mirror never reads those.
pub(crate) fn try_file(odb: &Odb<'_>, id: Oid) -> Result<(), git2::Error> {
    let (bytes, _kind) = read_header(odb, id)?;
    if bytes <= INDEX_FILE_BYTES_MAX {
        odb.read(id)?;
    }
    Ok(())
}

/// Returns the size and the kind of an object without unpacking it. The kind is `None` if it is unknown: a damaged pack
/// can cause that, and git2's own function panics there.
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
            // Called for its side effect: git2 initialises libgit2 here, before anything is set.
            let _initialised = git2::opts::get_server_timeout_in_milliseconds();
            let _unsupported =
                git2::opts::set_server_connect_timeout_in_milliseconds(milliseconds(connect));
            let _unsupported =
                git2::opts::set_server_timeout_in_milliseconds(milliseconds(silence));
            // Trees are read once, and index files have a cache of their own.
            git2::opts::enable_caching(false);
            // The settings of the machine's git users are not for the mirror: `url.<base>.insteadOf` would lead it
            // elsewhere. libgit2 looks at these files 180 times in a refresh.
            for level in [
                ConfigLevel::ProgramData,
                ConfigLevel::System,
                ConfigLevel::XDG,
                ConfigLevel::Global,
            ] {
                let _none = git2::opts::set_search_path(level, "");
            }
            // Off: in a container that maps users differently the data directory seems to belong to another user.
            let _unsupported = git2::opts::set_verify_owner_validation(false);
            // SAFETY of this call: libgit2 copies the table, and its functions have the right signatures.
            libgit2_sys::git_libgit2_opts(
                libgit2_sys::GIT_OPT_SET_ALLOCATOR as c_int,
                &raw const ALLOCATOR,
            );
            retry_after::watch();
            // Flush objects to the disk: after a power failure the mirror would not notice a gap in the git index.
            libgit2_sys::git_libgit2_opts(
                libgit2_sys::GIT_OPT_ENABLE_FSYNC_GITDIR as c_int,
                1 as c_int,
            );
            // SAFETY of this call: no transport is in use yet.
            let _registered =
                git2::transport::register(proxied_http::SCHEME, proxied_http::transport);
            let contact_shown = contact.map_or_else(String::new, |contact| format!(" ({contact})"));
            proxied_http::configure(connect, silence, format!("{product}{contact_shown}"));
            for (option, text) in [
                (libgit2_sys::GIT_OPT_SET_USER_AGENT_PRODUCT, product),
                // libgit2 appends this one in brackets after the product, and omits it if it is empty.
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

    /// With a limit, a thread that opens a pack closes another one after it has released libgit2's lock (1.9.7,
    /// `git_mwindow_file_register`). Meanwhile the thread that uses that pack can free it, and the first thread writes to
    /// the freed block: 4 of 5 runs of 30 s ended in a crash, with 8 threads, a repository of 40 packs for each, and 3
    /// open packs. `UpkeepLimits::packs_max` keeps open packs few instead.
    #[test]
    fn libgit2_never_closes_a_pack_that_another_thread_reads() {
        let limit = Duration::from_secs(5);
        configure(limit, limit, "crates-io-mirror/test", None);
        // SAFETY: it reads a number that nothing sets.
        let open_packs_max = unsafe { git2::opts::get_mwindow_file_limit() };
        assert_eq!(open_packs_max.unwrap(), 0);
    }

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
        // Freed memory can be allocated again.
        for _ in 0..4 {
            let all = small(64 * mib, Some(8 * mib));
            assert_eq!(read(all), (Ok(content.len()), false));
        }
        assert_eq!(git.find_blob(id).unwrap().size(), content.len());
    }

    #[test]
    fn the_settings_of_the_machines_git_users_are_not_read() {
        let limit = Duration::from_secs(5);
        configure(limit, limit, "crates-io-mirror/test", None);
        for level in [ConfigLevel::System, ConfigLevel::XDG, ConfigLevel::Global] {
            // SAFETY: nothing sets it after `configure`.
            let path = unsafe { git2::opts::get_search_path(level) };
            assert_eq!(path.unwrap().to_bytes(), b"", "{level:?}");
        }
    }

    #[test]
    fn content_under_the_id_of_another_object_is_not_read() {
        let directory = tempfile::TempDir::new().unwrap();
        let git = Repository::init_bare(directory.path()).unwrap();
        let [intact, wrong] = [b"intact", b"wrong!"].map(|content| git.blob(content).unwrap());
        let file = |id: Oid| {
            let id = id.to_string();
            let (folder, name) = id.split_at(2);
            directory.path().join("objects").join(folder).join(name)
        };
        std::fs::remove_file(file(wrong)).unwrap();
        std::fs::copy(file(intact), file(wrong)).unwrap();
        let odb = git.odb().unwrap();
        assert!(try_file(&odb, intact).is_ok());
        assert!(try_file(&odb, wrong).is_err());
    }
}
