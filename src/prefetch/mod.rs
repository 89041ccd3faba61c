//! `prefetch`: which crate files are wanted, and fetching them ahead of need.
//!
//! Arguments and files ([`Inputs`]) are read into what is wanted by name ([`Wanted`](plan::Wanted)), that is looked up
//! in the index and becomes a [`Plan`](plan::Plan), and a plan is carried out by so many jobs at a time. Nothing is
//! remembered between runs but the files themselves: a file that is held costs a look-up.

pub(crate) mod choose;
pub(crate) mod closure;
pub(crate) mod crate_list;
pub(crate) mod crate_spec;
pub(crate) mod everything;
pub(crate) mod fetch;
pub(crate) mod findings;
pub(crate) mod index_reader;
pub(crate) mod inputs;
pub(crate) mod lockfile;
pub(crate) mod plan;
pub(crate) mod tally;

pub(crate) use crate::cli::commands::prefetch::{Action, Prefetch, Selection, prefetch};
pub(crate) use closure::Dependencies;
pub(crate) use crate_spec::CrateSpec;
pub(crate) use fetch::{CrateKeeper, JOBS_DEFAULT, JOBS_MAX};
pub(crate) use index_reader::{IndexReader, IndexUnreadable};
pub(crate) use inputs::{InputError, Inputs};
pub(crate) use lockfile::OwnSources;
pub(crate) use tally::{EnsureError, Ensured};
