//! The HTTP client that fetches crate files.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, header};

use super::FetchLimits;

/// How many redirects of one request are followed.
const REDIRECTS_MAX: usize = 5;

/// How long a connection is kept for the next file.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

/// Idle connections that are kept for each host.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// The client could not be made, for example because the system has no certificates to trust.
#[derive(Debug, thiserror::Error)]
#[error("crate files cannot be fetched: {0}")]
pub(crate) struct ClientError(#[from] reqwest::Error);

/// Makes ring the process's cryptography, which rustls wants to be told.
pub(crate) fn use_ring() {
    // Whoever came first said the same.
    let _already_set = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
}

/// A client that says who it is, and leaves bodies as they come.
pub(super) fn build(user_agent: &str, limits: &FetchLimits) -> Result<Client, ClientError> {
    use_ring();
    // A crate file is compressed; whoever packed it again would change what is hashed.
    let identity = header::HeaderValue::from_static("identity");
    Ok(Client::builder()
        .user_agent(user_agent)
        .default_headers([(header::ACCEPT_ENCODING, identity)].into_iter().collect())
        .connect_timeout(limits.connect_timeout)
        .pool_idle_timeout(IDLE_TIME_MAX)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .redirect(redirects())
        .build()?)
}

/// Follows a handful, and never from https to http.
fn redirects() -> Policy {
    Policy::custom(|attempt| {
        let before = attempt.previous();
        let leaves_tls = attempt.url().scheme() != "https"
            && before.last().is_some_and(|url| url.scheme() == "https");
        if before.len() > REDIRECTS_MAX {
            attempt.error("too many redirects")
        } else if leaves_tls {
            attempt.error("a redirect from https to http")
        } else {
            attempt.follow()
        }
    })
}
