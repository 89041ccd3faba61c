//! The advisory database: a clone of it, kept up to date, read into [`Advisories`](crate::policy::Advisories), and served
//! on to git clients.
//!
//! It is followed like the index, with the same limits. Nothing here makes the mirror unready: without advisories, or with
//! old ones, it serves what it has.

mod check;
mod clone;
pub(super) mod copy_on_disk;
mod error;
pub(super) mod handle;
mod read;
pub(super) mod settings;
pub(super) mod task;
#[cfg(test)]
mod tests;
