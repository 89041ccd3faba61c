//! The mirror as its clients and its upstreams see it: real git, real cargo, real processes, and failures that the
//! tests cause. Nothing here leaves loopback. Tests of single modules are beside their code.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails when it meets something unexpected, and shows it"
)]

mod advisories;
mod air_gap;
mod attack;
mod cargo;
mod carry;
mod changes;
mod clock;
mod clone_on_disk;
mod command_line;
mod crates_kept;
mod deploy;
mod documents;
mod environments;
mod every_file;
mod follows;
mod gauges;
mod git_served;
mod headers;
mod hostile;
mod http2;
mod index_limits;
mod index_redirects;
mod log;
mod metrics;
mod one_view;
mod own_server;
mod path_prefix;
mod policy;
mod policy_attack;
mod policy_cargo;
mod policy_cli;
mod policy_refreshes;
mod policy_stored;
mod policy_surfaces;
mod prefetch;
mod prepared;
mod process;
mod process_one;
mod proxies;
mod push;
mod secrets;
mod set_up;
mod settings;
mod standard_output;
mod support;
mod time_travel;
mod tls;
#[cfg(feature = "otlp")]
mod traces;
mod upkeep;
mod uploads;
mod upstream_fails;
mod verify;
mod web_api;
