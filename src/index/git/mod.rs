//! The git index: its commits, its server, its damage check, the push to another host, and the `git` program.

pub(super) mod damage_check;
pub(super) mod overlay;
pub(super) mod program;
pub(super) mod push;
pub(super) mod upload_pack;
