//! The served git index.

pub(super) mod damage;
pub(super) mod overlay;
pub(super) mod push;
pub(super) mod served;
