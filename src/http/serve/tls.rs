//! The certificate that TLS is spoken with: reading it from its files, and reading it again when they change.
//!
//! What does not live here: the handshake of a connection (`connection`).

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinError;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_util::sync::CancellationToken;

/// How a client and the mirror agree on HTTP/2 (RFC 9113, section 3.1).
pub(super) const ALPN_HTTP2: &[u8] = b"h2";

/// The same for HTTP/1.1.
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Larger files are something else.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A certificate with its key, and the files that they were read from.
///
/// Invariant: the key is the certificate's. Not promised: that a client trusts it, or that it has not run out.
#[derive(Clone, Debug)]
pub(crate) struct TlsCertificate {
    files: Files,
    content: Content,
    server: Arc<ServerConfig>,
}

/// Why there is no certificate. Each says which of the two files is to be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// The file of the certificate cannot be read.
    #[error("the certificate cannot be read: {0}")]
    CertificateUnreadable(#[source] io::Error),
    /// There is no certificate in it.
    #[error("there is no certificate in PEM in its file, or one that cannot be used")]
    NoCertificate,
    /// The file of the key cannot be read.
    #[error("the key cannot be read: {0}")]
    KeyUnreadable(#[source] io::Error),
    /// There is no key in it.
    #[error("there is no private key in PEM in its file, or one that cannot be used")]
    NoKey,
    /// Key and certificate do not belong together.
    #[error("the key is not that of the certificate")]
    KeyOfAnother,
}

#[derive(Clone, Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What is in the files. The key never shows.
#[derive(Clone, PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Content").finish_non_exhaustive()
    }
}

impl TlsCertificate {
    /// Reads a certificate chain and its private key from two files in PEM. Blocking.
    ///
    /// # Errors
    /// [`CertificateError`] for whatever makes them unusable.
    pub(crate) fn read(certificate: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        let files = Files { certificate, key };
        let content = files.read()?;
        let server = content.server()?;
        Ok(Self {
            files,
            content,
            server,
        })
    }
}

impl Files {
    fn read(&self) -> Result<Content, CertificateError> {
        Ok(Content {
            certificate: read_file(&self.certificate)
                .map_err(CertificateError::CertificateUnreadable)?,
            key: read_file(&self.key).map_err(CertificateError::KeyUnreadable)?,
        })
    }
}

/// A pipe or a device would keep the reader waiting, for ever if need be.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a file",
        ));
    }
    let mut content = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut content)?;
    Ok(content)
}

impl Content {
    fn server(&self) -> Result<Arc<ServerConfig>, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|_not_pem| CertificateError::NoCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_not_pem| CertificateError::NoKey)?;
        // The provider is named, for rustls panics where several were built in and none was chosen.
        let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_no_client_auth())
            .and_then(|builder| builder.with_single_cert(chain, key))
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => CertificateError::KeyOfAnother,
                rustls::Error::InvalidCertificate(_)
                | rustls::Error::NoCertificatesPresented => CertificateError::NoCertificate,
                _ => CertificateError::NoKey,
            })?;
        server.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
        Ok(Arc::new(server))
    }
}

/// The certificate that new connections get; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct CurrentCertificate(Arc<ArcSwap<ServerConfig>>);

impl CurrentCertificate {
    /// Begins with this one.
    pub(crate) fn new(certificate: &TlsCertificate) -> Self {
        Self(Arc::new(ArcSwap::new(Arc::clone(&certificate.server))))
    }

    /// What a handshake needs. A connection keeps the certificate that it began with.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }

    /// Reads the files again whenever they change, until told to stop. While they make no sense, for example because
    /// only one of them is new, the last good certificate stays.
    ///
    /// # Errors
    /// If reading panicked.
    pub(crate) async fn follow(
        self,
        certificate: TlsCertificate,
        stop: CancellationToken,
    ) -> Result<(), JoinError> {
        let files = Arc::new(certificate.files);
        let mut seen = Some(certificate.content);
        loop {
            let look = async {
                tokio::time::sleep(LOOK_EVERY).await;
                let files = Arc::clone(&files);
                // They may lie on a disk that is slow, or gone.
                tokio::task::spawn_blocking(move || files.read()).await
            };
            let read = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                read = look => read?,
            };
            if read.as_ref().ok() != seen.as_ref() {
                seen = read.as_ref().ok().cloned();
                self.replace(read.and_then(|content| content.server()));
            }
        }
    }

    fn replace(&self, server: Result<Arc<ServerConfig>, CertificateError>) {
        match server {
            Ok(server) => {
                self.0.store(server);
                tracing::info!("the TLS certificate has changed: new connections get the new one");
            }
            Err(error) => tracing::warn!(
                error = %error,
                "TLS_CERT or TLS_KEY has changed and is not usable: new connections get the certificate of before"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_shows() {
        let content = Content {
            certificate: b"public".to_vec(),
            key: b"s3cret".to_vec(),
        };
        assert_eq!(format!("{content:?}"), "Content { .. }");
    }
}
