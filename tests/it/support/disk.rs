//! Disks that are too small or read-only, without more rights than the tests have.
//!
//! The best way is a mount that only the program sees: a namespace needs no rights on most systems. Without namespaces,
//! the closest substitute is used, and the caller learns that.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::hermetic;

/// The limit for one file on a fallback disk, in blocks of 512 bytes.
const FALLBACK_FILE_BLOCKS: u64 = 256;

/// A disk for a directory of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// A disk of this many KiB.
    Small(u64),
    /// A disk that takes no new data.
    ReadOnly,
}

/// The way in which a disk is made on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskMade {
    /// With a mount in a namespace of the program.
    InNamespace,
    /// With a substitute.
    Otherwise,
}

impl Disk {
    /// A command that runs a program with the disk at this directory, which exists.
    pub(super) fn command(
        self,
        directory: &Path,
        program: &str,
        home: &Path,
    ) -> (Command, DiskMade) {
        let made = if can_mount(home) {
            DiskMade::InNamespace
        } else {
            DiskMade::Otherwise
        };
        println!("{self:?}: made {made:?}");
        let mount = match self {
            Self::Small(kib) => format!("mount -t tmpfs -o size={kib}k none \"$1\""),
            Self::ReadOnly => {
                "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\"".to_owned()
            }
        };
        let script = match (made, self) {
            (DiskMade::InNamespace, _) => format!("{mount} && exec \"$0\""),
            // The signal is ignored, so that the program gets an error.
            (DiskMade::Otherwise, Self::Small(_)) => {
                format!("trap '' XFSZ; ulimit -f {FALLBACK_FILE_BLOCKS}; exec \"$0\"")
            }
            // Root ignores permissions. Files in the places of all directories prevent their creation.
            (DiskMade::Otherwise, Self::ReadOnly) => {
                let digits = "0 1 2 3 4 5 6 7 8 9 a b c d e f";
                format!(
                    "for a in {digits}; do for b in {digits}; do : > \"$1/$a$b\"; done; done; exec \"$0\""
                )
            }
        };
        let mut command = match made {
            DiskMade::InNamespace => namespace(home),
            DiskMade::Otherwise => hermetic("sh", home),
        };
        command.args(["-c", &script, program, directory.to_str().unwrap()]);
        (command, made)
    }
}

/// A directory as a process sees it, with the mounts of its namespace.
pub(super) fn as_seen_by(process: u32, directory: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{process}/root"));
    root.join(directory.strip_prefix("/").unwrap())
}

fn can_mount(home: &Path) -> bool {
    let tried = namespace(home)
        .args(["-c", "mount -t tmpfs none /mnt"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// A shell that can mount disks that only its children see.
fn namespace(home: &Path) -> Command {
    let mut command = hermetic("unshare", home);
    command.args(["--map-root-user", "--mount", "sh"]);
    command
}
