//! `prefetch`: which crate files are wanted, and fetching them ahead of need.
//!
//! Arguments and files ([`Inputs`]) are read into what is wanted by name ([`Wanted`](plan::Wanted)), that is looked up
//! in the index and becomes a [`Plan`](plan::Plan), and a plan is carried out by so many jobs at a time. Nothing is
//! remembered between runs but the files themselves: a file that is held costs a look-up.

mod choose;
mod closure;
mod crate_list;
mod crate_spec;
mod everything;
mod executor;
mod findings;
pub(in crate::cli) mod index_reader;
mod inputs;
mod lockfile;
mod plan;
mod progress;
mod tally;
mod verb;

pub(crate) use closure::Dependencies;
pub(crate) use crate_spec::CrateSpec;
pub(crate) use executor::{CrateKeeper, JOBS_DEFAULT, JOBS_MAX};
pub(crate) use index_reader::{IndexReader, IndexUnreadable};
pub(crate) use inputs::{InputError, Inputs};
pub(crate) use lockfile::OwnSources;
pub(crate) use tally::{EnsureError, Ensured};
pub(crate) use verb::{Action, Prefetch, Selection, prefetch};
