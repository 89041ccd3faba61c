//! The TLS certificate: reading it from its files, and reading it again when they change.
//!
//! The handshake of a connection is in `connection`.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::metrics::gauge::Gauge;
use tokio::task::JoinError;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_util::sync::CancellationToken;

use super::certificate_expiry::expiry_of;

/// How a client and the mirror agree on HTTP/2 (RFC 9113, section 3.1).
pub(crate) const ALPN_HTTP2: &[u8] = b"h2";

/// The same for HTTP/1.1.
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// How often the mirror looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The longest file that can be a certificate or a key.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Some editors write this at the beginning of a text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The object identifier of the curve P-521 in a key, 1.3.132.0.35, in DER.
const P521: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// A certificate with its key, and the files that they were read from.
///
/// Invariant: the key belongs to the certificate. Not promised: that clients trust it, or that it has not expired.
#[derive(Clone, Debug)]
pub(crate) struct TlsCertificate {
    files: Files,
    pem: PemFiles,
    made: Made,
}

/// The result of reading the files.
#[derive(Clone, Debug)]
struct Made {
    server: Arc<ServerConfig>,
    /// When the certificate of the mirror itself expires, in seconds since 1970; 0 if that is not known.
    expiry: i64,
}

/// Why there is no certificate. Each variant names the wrong file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// The file of the certificate cannot be read.
    #[error("the certificate cannot be read: {0}")]
    CertificateUnreadable(#[source] io::Error),
    /// The file contains no certificate.
    #[error("the file contains no usable PEM certificate")]
    NoCertificate,
    /// The file of the key cannot be read.
    #[error("the key cannot be read: {0}")]
    KeyUnreadable(#[source] io::Error),
    /// The file contains no key.
    #[error("the file contains no usable PEM private key")]
    NoKey,
    /// ring, which does the cryptography, cannot sign with the curve of the key.
    #[error("the key is on the curve P-521, which is not supported")]
    KeyOnP521,
    /// The key belongs to another certificate.
    #[error("the key does not belong to the certificate")]
    KeyOfAnother,
}

#[derive(Clone, Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// The contents of the files. `Debug` never shows the key.
#[derive(Clone, PartialEq, Eq)]
struct PemFiles {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl fmt::Debug for PemFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PemFiles").finish_non_exhaustive()
    }
}

impl TlsCertificate {
    /// Reads a certificate chain and its private key from two files in PEM. Blocking.
    ///
    /// # Errors
    /// [`CertificateError`] for whatever makes them unusable.
    pub(crate) fn read(certificate: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        let files = Files { certificate, key };
        let pem = files.read()?;
        let made = pem.made()?;
        Ok(Self { files, pem, made })
    }
}

impl Files {
    fn read(&self) -> Result<PemFiles, CertificateError> {
        Ok(PemFiles {
            certificate: read_file(&self.certificate)
                .map_err(CertificateError::CertificateUnreadable)?,
            key: read_file(&self.key).map_err(CertificateError::KeyUnreadable)?,
        })
    }
}

/// Refuses pipes and devices: reading them could wait for ever.
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

impl PemFiles {
    fn made(&self) -> Result<Made, CertificateError> {
        let (certificate, key) = (as_text(&self.certificate), as_text(&self.key));
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_not_pem| CertificateError::NoCertificate)?;
        // The first one is the mirror's own; the others lead to an authority.
        let expiry = chain.first().and_then(|own| expiry_of(own));
        let expiry = expiry.unwrap_or_default();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_not_pem| CertificateError::NoKey)?;
        let der = key.secret_der();
        let is_on_p521 = der.windows(P521.len()).any(|window| window == P521);
        // rustls panics if several providers are built in and none is chosen.
        let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_no_client_auth())
            .and_then(|builder| builder.with_single_cert(chain, key))
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => CertificateError::KeyOfAnother,
                rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                    CertificateError::NoCertificate
                }
                _ if is_on_p521 => CertificateError::KeyOnP521,
                _ => CertificateError::NoKey,
            })?;
        server.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
        Ok(Made {
            server: Arc::new(server),
            expiry,
        })
    }
}

/// The text of a PEM file without byte order marks. Editors write one at the beginning, and joined files may contain more.
/// A parser would miss the certificate behind each mark.
fn as_text(content: &[u8]) -> String {
    let unit: Option<fn([u8; 2]) -> u16> = match content {
        [0xff, 0xfe, ..] => Some(u16::from_le_bytes),
        [0xfe, 0xff, ..] => Some(u16::from_be_bytes),
        _ => None,
    };
    let text = match unit {
        // Windows shells write UTF-16 when they redirect to a file.
        Some(unit) => {
            let (pairs, _half_a_letter) = content.as_chunks::<2>();
            let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
            String::from_utf16_lossy(&units)
        }
        None => String::from_utf8_lossy(content).into_owned(),
    };
    text.replace(BYTE_ORDER_MARK, "")
}

/// The certificate for new connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct CurrentCertificate {
    server: Arc<ArcSwap<ServerConfig>>,
    /// When it expires, in seconds since 1970; 0 if that is not known.
    expiry: Gauge,
}

impl CurrentCertificate {
    /// Begins with this certificate. `expiry` always has the expiry of the current one.
    pub(crate) fn new(certificate: &TlsCertificate, expiry: Gauge) -> Self {
        let made = certificate.made.clone();
        expiry.set(made.expiry);
        Self {
            server: Arc::new(ArcSwap::new(made.server)),
            expiry,
        }
    }

    /// The certificate for one handshake. A connection keeps the certificate that it began with.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.server.load_full()
    }

    /// Reads the files again whenever they change, until it is told to stop. While they are not usable, for example
    /// because only one of them is new, the last good certificate stays.
    ///
    /// # Errors
    /// If reading panicked.
    pub(crate) async fn follow(
        self,
        certificate: TlsCertificate,
        stop: CancellationToken,
    ) -> Result<(), JoinError> {
        let files = Arc::new(certificate.files);
        let mut seen = Some(certificate.pem);
        loop {
            let look = async {
                tokio::time::sleep(LOOK_EVERY).await;
                let files = Arc::clone(&files);
                // The disk may be slow, or gone.
                tokio::task::spawn_blocking(move || files.read()).await
            };
            let read = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                read = look => read?,
            };
            if read.as_ref().ok() != seen.as_ref() {
                seen = read.as_ref().ok().cloned();
                self.replace(read.and_then(|pem| pem.made()));
            }
        }
    }

    fn replace(&self, made: Result<Made, CertificateError>) {
        match made {
            Ok(Made { server, expiry }) => {
                self.server.store(server);
                self.expiry.set(expiry);
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
pub(super) mod tests {
    use rcgen::generate_simple_self_signed;
    use tempfile::TempDir;

    use super::*;

    /// Made by OpenSSL, since ring can make none.
    const P521_CERTIFICATE: &str = include_str!("../../tests/fixtures/p521/certificate.pem");
    const P521_KEYS: [&str; 2] = [
        include_str!("../../tests/fixtures/p521/key.pem"),
        include_str!("../../tests/fixtures/p521/key-sec1.pem"),
    ];

    /// A certificate and its key, in PEM.
    fn made() -> (String, String) {
        let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn read(certificate: &str, key: &str) -> Result<TlsCertificate, CertificateError> {
        let directory = TempDir::new().unwrap();
        let paths = ["certificate", "key"].map(|name| directory.path().join(name));
        let [certificate_path, key_path] = paths;
        std::fs::write(&certificate_path, certificate).unwrap();
        std::fs::write(&key_path, key).unwrap();
        TlsCertificate::read(certificate_path, key_path)
    }

    /// A certificate for connections of tests, and what clients must trust.
    pub(crate) fn certificate() -> (CurrentCertificate, CertificateDer<'static>) {
        let (certificate, key) = made();
        let trusted = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let current = CurrentCertificate::new(&read(&certificate, &key).unwrap(), Gauge::default());
        (current, trusted)
    }

    #[test]
    fn a_chain_and_a_key_in_pem_are_read() {
        let (certificate, key) = made();
        let (another, another_key) = made();
        let chain = format!("a comment\n{certificate}\n{another}");
        assert!(read(&chain, &key).is_ok());
        // Both in one file, as some tools write them.
        let both = format!("{key}{certificate}");
        assert!(read(&both, &both).is_ok());

        use CertificateError::{KeyOfAnother, NoCertificate, NoKey};
        assert!(matches!(
            read(&certificate, &another_key),
            Err(KeyOfAnother)
        ));
        for bad in ["", "junk", &key, "-----BEGIN CERTIFICATE-----\nAAAA"] {
            assert!(matches!(read(bad, &key), Err(NoCertificate)), "{bad}");
        }
        let no_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(read(no_der, &key), Err(NoCertificate)));
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let no_key = no_der.replace("CERTIFICATE", "PRIVATE KEY");
        for bad in ["", "junk", &certificate, &encrypted, &no_key] {
            assert!(matches!(read(&certificate, bad), Err(NoKey)), "{bad}");
        }
    }

    #[test]
    fn a_byte_order_mark_does_no_harm() {
        let (certificate, key) = made();
        let (another, _) = made();
        let marked = |text: &str| format!("\u{feff}{text}");
        let joined = marked(&certificate) + &marked(&another);
        assert_eq!(as_text(joined.as_bytes()), certificate + &another);
        assert!(read(&joined, &marked(&key)).is_ok());
        for units in [u16::to_le_bytes, u16::to_be_bytes] {
            let utf16: Vec<u8> = marked(&key).encode_utf16().flat_map(units).collect();
            assert_eq!(as_text(&utf16), key);
        }
        assert_eq!(as_text(b"\xff\xfea"), "");
    }

    #[test]
    fn a_key_on_p521_has_its_own_error() {
        for key in P521_KEYS {
            let read = read(P521_CERTIFICATE, key);
            assert!(matches!(read, Err(CertificateError::KeyOnP521)), "{read:?}");
        }
    }

    #[test]
    fn directories_devices_and_missing_files_cannot_be_read() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("certificate");
        std::fs::write(&path, made().0).unwrap();
        for none in [
            directory.path().to_owned(),
            "/dev/zero".into(),
            "/nowhere".into(),
        ] {
            assert!(matches!(
                TlsCertificate::read(none.clone(), path.clone()),
                Err(CertificateError::CertificateUnreadable(_))
            ));
            assert!(matches!(
                TlsCertificate::read(path.clone(), none),
                Err(CertificateError::KeyUnreadable(_))
            ));
        }
    }

    #[test]
    fn debug_output_never_shows_a_key() {
        let (certificate, key) = made();
        let read = read(&certificate, &key).unwrap();
        let secret = read.pem.key.iter().map(u8::to_string).collect::<Vec<_>>();
        let shown = format!("{read:?}");
        assert!(!shown.contains("PRIVATE") && !shown.contains(&secret.join(", ")));
    }
}
