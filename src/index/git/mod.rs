//! The served git index.

pub(super) mod damage_check;
pub(super) mod overlay;
pub(super) mod push;
pub(super) mod upload_pack;
