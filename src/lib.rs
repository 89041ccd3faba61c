//! A crates.io mirror that an organisation can run.
//!
//! It follows one upstream git index and answers from a local clone of it. It is read-only: no sign-up, no publish, no
//! statistics, no page that lists crates.
//!
//! # The modules
//!
//! | module | what it contains |
//! | --- | --- |
//! | `app` | the composition root: [`Config`] → [`App`], run until stopped |
//! | `archive` | archives that cross an air gap: their format, export and import |
//! | `build_info` | which build of the program this is |
//! | `catalog` | an embedded database of all crates: search, reverse dependencies |
//! | `cli` | the command line: arguments, help, terminal, subcommands |
//! | `clock` | the time of day, which tests replace |
//! | `config` | environment variables → [`Config`], by one table of settings |
//! | `disk_file` | a file on a local disk: reading it, and parts that the kernel sends to a socket |
//! | `http` | the URL table, handlers, errors, HTTP semantics |
//! | `index` | the clone of the index, the task that follows the upstream, what is served of it, the git index and its push |
//! | `journal` | what has changed in the shown index, step by step, for the change feed |
//! | `memory` | settings of the C library's allocator |
//! | `observability` | logging, traces, and the counts behind `/metrics` |
//! | `outgoing` | what connections to other machines share: proxies and CA certificates |
//! | `package` | names, versions, checksums, index lines: pure values |
//! | `policy` | pure rules: what is shown of the index, and why |
//! | `prefetch` | which crate files are wanted, and fetching them |
//! | `printable` | texts from outside, without what a terminal does not show |
//! | `process_one` | reaping orphans when the program is the first process of a container |
//! | `server` | connections: accepting, TLS, HTTP/1 and HTTP/2, fair shares of memory and turns |
//! | `sqlite` | what the embedded databases share: files, connections, questions, the task that follows views |
//! | `stdout` | whether the process has a standard output |
//! | `store` | crate files by checksum, on a disk or in a cloud; one fetch for all who wait |
//! | `upstream` | the URLs of crate files; fetching one file and checking it |
//!
//! `ARCHITECTURE.md` says which module may use which, and `.ci/architecture` checks that. It also explains the ways of a
//! request, of a crate file and of a commit, the invariants, and the decisions. In short:
//!
//! - A **request** comes through `server`, then the common steps and the URL table of `http`. Its handler takes one
//!   immutable view of the index, and answers from it.
//! - A **crate file** is looked up in `store` by the checksum that the index has. If it is missing, `upstream` fetches it
//!   once for all who wait, and only verified bytes are stored.
//! - A **commit** is fetched by the task in `index` on a blocking thread. Rules turn it into a new view, which replaces
//!   the old one for new requests.

mod app;
mod archive;
mod build_info;
mod catalog;
mod cli;
mod clock;
mod config;
mod disk_file;
mod http;
mod index;
mod journal;
mod memory;
mod observability;
mod outgoing;
mod package;
mod policy;
mod prefetch;
mod printable;
mod process_one;
mod server;
mod sqlite;
mod stdout;
mod store;
mod upstream;

pub use app::{App, RunError, StartError, runtime, start_logging};
#[cfg(feature = "bench-rules")]
pub use catalog::CatalogProbe;
pub use cli::run_command_line;
pub use clock::Clock;
pub use config::{Config, ConfigError, VARIABLES};
pub use index::UpkeepLimits;
pub use memory::return_large_blocks;
pub use observability::Logging;
pub use upstream::{FetchLimits, Resolver};
