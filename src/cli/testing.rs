//! Subcommands without a process: settings, a terminal that remembers, and a real upstream of crate files.

use std::collections::HashMap;
use std::future::IntoFuture;

use axum::Router;
use axum::http::{StatusCode, Uri};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::terminal::testing::{Written, remembering};
use crate::clock::Clock;
use crate::config::Config;
use crate::outgoing::Proxies;
use crate::prefetch::testing::content_of;
use crate::store::testing::memory_store;
use crate::store::{CrateFiles, CrateFilesSettings};
use crate::upstream::{ClientSettings, CrateSources, DownloadTemplates, FetchLimits, Resolver};

/// A subcommand with these settings, and what it writes.
pub(super) fn context(settings: &[(&str, &str)]) -> (Context, Written) {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let (terminal, written) = remembering();
    let context = Context {
        config: Config::from_pairs(settings.iter().map(owned)).unwrap(),
        terminal,
        stop: CancellationToken::new(),
    };
    (context, written)
}

/// A store in memory, with an upstream that has these versions. Each file's content is made from its name and version.
pub(super) async fn crate_files(upstream: &[(&str, &str)]) -> CrateFiles {
    let file =
        |(name, version): &(&str, &str)| (format!("/{name}/{version}"), content_of(name, version));
    let files: HashMap<String, String> = upstream.iter().map(file).collect();
    let router = Router::new().fallback(async move |uri: Uri| {
        let found = files.get(uri.path()).cloned();
        found.ok_or(StatusCode::NOT_FOUND)
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    let templates = format!("http://{address}/{{crate}}/{{version}}");
    let templates = DownloadTemplates::parse(&templates).unwrap();
    let settings = ClientSettings {
        user_agent: "crates-io-mirror/test".to_owned(),
        limits: FetchLimits::default(),
        resolver: Resolver::system(),
        proxies: Proxies::default(),
    };
    let sources = CrateSources::new(&templates, settings, Clock::system());
    CrateFiles::new(CrateFilesSettings {
        store: memory_store(),
        sources: Some(sources.unwrap()),
        missing_remembered: std::time::Duration::ZERO,
        wait_max: std::time::Duration::from_secs(5),
    })
}
