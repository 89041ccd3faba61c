//! What the tests run the mirror against: real git repositories, scripted servers on loopback, real `.crate` files.
//!
//! Servers are blocking and have a thread for each connection, so that a fault can be placed at an exact byte. Dropping
//! any of these ends and removes what it started.

mod accept_loop;
mod certificate;
mod client;
mod command;
mod crate_file;
mod crate_files;
mod fixtures;
mod git_index;
mod git_server;
mod http2;
mod meter;
mod mirror;
mod program;
mod request;
mod wait;

pub(crate) use certificate::Authority;
pub(crate) use client::{Answer, Client, Connection};
pub(crate) use command::hermetic;
pub(crate) use crate_file::CrateFile;
pub(crate) use crate_files::CrateFiles;
pub(crate) use fixtures::{FIXTURES, fixture};
pub(crate) use git_index::{GitIndex, index_line, index_path};
pub(crate) use git_server::{Fault, GitServer};
pub(crate) use http2::{Http2, Http2Answer, chosen, get_by_http1, shown, tls};
pub(crate) use meter::Meter;
pub(crate) use mirror::Mirror;
pub(crate) use program::Program;
pub(crate) use wait::{eventually, eventually_some};
