//! The git index: its commits, its server, the `git` program, its damage check, and the push to another host.

pub(super) mod damage_check;
pub(super) mod overlay;
pub(super) mod program;
pub(super) mod push;
pub(super) mod upload_pack;
