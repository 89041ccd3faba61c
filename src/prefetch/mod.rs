//! Which crate files are wanted, and fetching them ahead of need.
//!
//! Arguments, lock files and crate lists are read into [`Wanted`]. The index turns that into a [`Plan`], and [`fetch_all`]
//! fetches the files of a plan. Nothing is remembered between runs except for the files themselves: a stored file costs one
//! look-up. The index is read as it is served, so the policy counts here, too.

mod closure;
mod crate_spec;
mod fetch;
mod finding;
mod lockfile;
mod plan;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use closure::Dependencies;
pub(crate) use closure::choose::{NoChoice, crate_file};
pub(crate) use crate_spec::{CrateSpec, VersionWanted};
pub(crate) use fetch::{
    Ended, FetchEvent, JOBS_DEFAULT, JOBS_MAX, Tally, ensure_patiently, fetch_all,
};
pub(crate) use finding::Severity;
pub(crate) use lockfile::OwnSources;
pub(crate) use plan::{InputError, Plan, Wanted, every_file};
