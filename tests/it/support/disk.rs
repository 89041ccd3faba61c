//! Disks that are too small or cannot be written to, without asking for more rights than the tests have.
//!
//! Best is a mount that only the program sees: a namespace of its own needs no rights on most systems. Where there are
//! no namespaces, what comes closest is used instead, and said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::hermetic;

/// How much the fallback of a small disk lets into one file, in units of 512 bytes.
const FALLBACK_FILE_BLOCKS: u64 = 256;

/// A disk for the directory that a program keeps files in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// Holds so many KiB.
    Small(u64),
    /// Takes nothing new.
    ReadOnly,
}

/// How a disk is made on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskMade {
    /// By a mount in a namespace of the program.
    InNamespace,
    /// By something that comes close.
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
            // The signal that comes with the refusal is ignored, so that the program sees an error.
            (DiskMade::Otherwise, Self::Small(_)) => {
                format!("trap '' XFSZ; ulimit -f {FALLBACK_FILE_BLOCKS}; exec \"$0\"")
            }
            // What root may write in spite of this, a file in the directory's place keeps it from.
            (DiskMade::Otherwise, Self::ReadOnly) => {
                "rmdir \"$1\" && : > \"$1\" && exec \"$0\"".to_owned()
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

/// A directory as a process sees it, mounts of its own included.
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

/// A shell that may mount what nobody else sees.
fn namespace(home: &Path) -> Command {
    let mut command = hermetic("unshare", home);
    command.args(["--map-root-user", "--mount", "sh"]);
    command
}
