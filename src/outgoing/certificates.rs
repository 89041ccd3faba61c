//! The CA certificates of this machine, without which nothing can be asked by `https`. Images often have none.

use reqwest::{Client, ClientBuilder};

/// What to say where there are none.
pub(crate) const MISSING: &str = "this machine has no CA certificates, which https needs: install the package \
                                  ca-certificates, or set SSL_CERT_FILE to a file that has them";

/// Makes ring the process's cryptography, which rustls wants to be told.
pub(crate) fn use_ring() {
    // Whoever came first said the same.
    let _already_set = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
}

/// Whether there are none. Blocking, for a file of 300 kB.
pub(crate) fn are_missing() -> bool {
    use_ring();
    // The client reads them, by the same rules as those that are in use later; nothing else in it can fail.
    Client::builder().no_proxy().build().is_err()
}

/// Makes a client. Without certificates it can ask by `http` only, so whoever wants `https` looks before.
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
