//! The git index: its commits, its server, its damage check, and the push to another host.

pub(super) mod damage_check;
pub(super) mod overlay;
pub(super) mod push;
pub(super) mod upload_pack;
