//! A crates.io mirror that an organisation can run.
//!
//! It follows one upstream git index and answers from a local clone of it. It is read-only: no sign-up, no publish, no
//! statistics, no page that lists crates.
//!
//! # The rooms
//!
//! | room | what lives there | uses |
//! | --- | --- | --- |
//! | `app` | the composition root: [`Config`] → [`App`], run until stopped | all |
//! | `cli` | the command line, the verbs beside serve, archives | `config`, `index`, `store`, `package`; `app`, to open the store |
//! | `config` | environment variables → [`Config`] | `index`, `store` and `upstream`, for the types of their URLs and the resolver; `outgoing`; `http`, for those of the certificate and the trusted proxies |
//! | `http` | routes, handlers, errors, headers | `server`, `index`, `store`, `upstream`, `package`, `clock` |
//! | `server` | connections: the accept loop, TLS, HTTP/1 and HTTP/2, fair shares of memory and permits | `memory`; `store`, for parts of files |
//! | `index` | the clone, its refresh and upkeep in the background, snapshots, the git index and its push | `package`, `outgoing`, `memory` |
//! | `store` | crate files by checksum on a disk or in a cloud; fetching each once for all who wait | `upstream`, `package`, `outgoing` |
//! | `upstream` | the templates of crate file URLs; fetching one file and checking it | `package`, `outgoing` |
//! | `cli` | the verbs beside `serve`: prefetch, verify, export, import, check-config | all but `http` |
//! | `package` | names, versions, index lines: pure values | nothing |
//! | `observability` | logging set-up | `config`, `stdout` |
//! | `outgoing` | what connections to other machines have in common: proxies, CA certificates | nothing |
//! | `clock` | the time of day, injected | nothing |
//! | `process_one` | reaping orphans where the program is the first process of a container | nothing |
//! | `stdout` | whether the process has a standard output | nothing |
//! | `memory` | a setting of the C library's allocator | nothing |
//!
//! # The way of a request
//!
//! `server` accepts the connection and speaks TLS, HTTP/1.1 or HTTP/2. It calls `http` for each request. There
//! `every_request` logs it, normalises its path, refuses writes, and adds the common headers; `router` is the URL table.
//! A handler reads the index through `index_guard`: it takes one view, waits for a permit, and marks the answer with
//! the commit. A redirect to a crate file needs no index: it is made from name, version and template. A git client is
//! answered by a child, git's own `upload-pack`, whose input and output `http::git` carries.
//!
//! Each request is an exchange (`server`'s `exchange`), which ends when the last byte of its answer has been sent or
//! given up. Then its log event is written, and its shares of memory and permits go back.
//!
//! # The way of a crate file
//!
//! Where the mirror sends crate files itself, the index says which checksum a version has (`http::crate_files`). The
//! keeper (`store::crate_files`) has the file, or begins a task that fetches it (`upstream::fetch`), which hashes what comes on
//! its way into the store. Only what is right gets its key. From a disk the system sends it to a plain connection by
//! itself (`server::send_file`).
//!
//! # The way of a commit
//!
//! The refresher (`index::follow::follower`) fetches on a blocking thread, reads the directories that changed, and publishes a
//! new immutable snapshot. Requests under way keep the one they began with.
//!
//! Where there is a `PUBLIC_URL`, it first makes a commit with the same tree and a `config.json` of our own
//! (`index::git::overlay`). That is what git clients get, and what the pusher (`index::git::push`) sends to `INDEX_PUSH_URL`, a
//! task of its own that nothing waits for. After a fetch, a clone with many packs is rolled up, and one full of old
//! history replaced (`index::source::upkeep`).
//!
//! # Invariants
//!
//! - Only `config` reads the environment, only `http` names a status code, only `index` touches git2 and starts `git`,
//!   only `store` touches `object_store`.
//! - A crate file is served only if its SHA-256 is what the index says of the version asked for. One that is read whole from
//!   a cloud is hashed on its way, and a damaged one is never sent to its end. A part is sent only after the whole file was
//!   found right once, and each block of it is compared with what it was then.
//! - All bytes that are kept for clients are accounted for in one place, whatever the protocol. Whether the clone or the git
//!   index is damaged is found out by reading, never from text that a client can influence.
//! - Snapshots are swapped, never changed.
//! - Nothing from outside can cause a panic, and nothing that blocks runs on an async worker.

mod app;
mod archive;
mod cli;
mod clock;
mod config;
mod http;
mod index;
mod memory;
mod observability;
mod outgoing;
mod package;
mod prefetch;
mod process_one;
mod server;
mod stdout;
mod store;
mod upstream;

pub use app::{App, RunError, StartError, runtime};
pub use cli::{Invocation, Verb, read_command_line};
pub use clock::Clock;
pub use config::{Config, ConfigError, VARIABLES};
pub use index::UpkeepLimits;
pub use memory::return_large_blocks;
pub use observability::{Logging, start_logging};
pub use process_one::reap_as_process_one;
pub use upstream::{FetchLimits, Resolver};
