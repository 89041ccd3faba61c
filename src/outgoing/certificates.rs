//! The CA certificates of this machine. `https` needs them, and container images often have none.

use reqwest::{Client, ClientBuilder};

/// The message if there are none.
pub(crate) const MISSING: &str = "this machine has no CA certificates, which https needs: install the package \
                                  ca-certificates, or set SSL_CERT_FILE to a file that has them";

/// Tells rustls to use ring in this process.
pub(crate) fn use_ring() {
    // An earlier call set the same.
    let _already_set = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
}

/// Whether there are none. Blocks while it reads a file of 300 kB.
pub(crate) fn are_missing() -> bool {
    use_ring();
    // The client reads them by the same rules as every later client, and nothing else in it can fail.
    Client::builder().no_proxy().build().is_err()
}

/// Makes a client. Without certificates it can only use `http`, so callers that need `https` check [`are_missing`] first.
pub(crate) fn build(builder: impl Fn() -> ClientBuilder) -> reqwest::Result<Client> {
    use_ring();
    builder().build().or_else(|error| {
        if are_missing() {
            builder().tls_certs_only([]).build()
        } else {
            Err(error)
        }
    })
}
