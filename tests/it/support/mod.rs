//! The environment of the tests: real git repositories, scripted servers on loopback, real `.crate` files.
//!
//! Servers are blocking and have a thread for each connection, so that a fault can be at an exact byte. Dropping a
//! server ends it and removes its files.

mod accept_loop;
mod attacker;
mod certificate;
mod client;
mod command;
mod content;
mod crate_file;
mod crate_files;
mod crate_upstream;
mod disk;
mod fixtures;
mod gate;
mod git_index;
mod git_server;
mod http2;
mod meter;
mod mirror;
mod origin;
mod prefix_proxy;
mod program;
mod project;
mod proxy;
mod published_crate;
mod request;
#[expect(dead_code, reason = "the tests of src/store use the rest")]
mod s3_server;
mod stored_files;
mod upstream_fault;
mod wait;
mod wire;

#[cfg(feature = "otlp")]
pub(crate) use accept_loop::AcceptLoop;
pub(crate) use attacker::{Http2Attacker, Statuses, connect_from, peer, request_from};
pub(crate) use certificate::Authority;
pub(crate) use client::{Answer, Client, Connection};
pub(crate) use command::hermetic;
pub(crate) use content::Content;
pub(crate) use crate_file::CrateFile;
pub(crate) use crate_files::CrateFiles;
pub(crate) use crate_upstream::CrateUpstream;
pub(crate) use disk::{Disk, DiskMade};
pub(crate) use fixtures::{FIXTURES, fixture};
pub(crate) use git_index::{GitIndex, index_line, index_path};
pub(crate) use git_server::{Fault, GitServer};
pub(crate) use http2::{Http2, Http2Answer, chosen, get_by_http1, shown, tls};
pub(crate) use meter::Meter;
pub(crate) use mirror::{Mirror, borrowed};
pub(crate) use origin::Origin;
pub(crate) use prefix_proxy::PrefixProxy;
pub(crate) use program::{Program, send_signal};
pub(crate) use project::{Project, succeeds};
pub(crate) use proxy::HttpProxy;
pub(crate) use published_crate::PublishedCrate;
#[cfg(feature = "otlp")]
pub(crate) use request::Request;
pub(crate) use s3_server::{S3Fault, S3Server, SECRET_KEY};
pub(crate) use stored_files::{StoredFiles, stored_path};
pub(crate) use upstream_fault::UpstreamFault;
pub(crate) use wait::{eventually, eventually_some};
