//! A private authority, and certificates for a mirror on loopback.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Signs certificates, and writes the files that a mirror reads.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    files: TempDir,
}

impl Authority {
    /// A new authority. [`Authority::file`] has its own certificate.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "a private authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self {
            issuer,
            files: TempDir::new().unwrap(),
        };
        std::fs::write(authority.file(), authority.issuer.pem()).unwrap();
        authority.renew();
        authority
    }

    /// The certificate that clients must trust, in PEM.
    pub(crate) fn file(&self) -> PathBuf {
        self.files.path().join("authority.pem")
    }

    /// The certificate that clients must trust.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// `TLS_CERT` and `TLS_KEY`.
    pub(crate) fn settings(&self) -> [(&'static str, String); 2] {
        [("TLS_CERT", "cert.pem"), ("TLS_KEY", "key.pem")].map(|(variable, name)| {
            let path = self.files.path().join(name);
            (variable, path.to_str().unwrap().to_owned())
        })
    }

    /// Writes another certificate into the files, and returns it.
    pub(crate) fn renew(&self) -> CertificateDer<'static> {
        let (certificate, key, der) = self.sign();
        self.write(Some(&certificate), Some(&key));
        der
    }

    /// Writes another certificate into the files, which expires on the first of January of this year.
    pub(crate) fn renew_until(&self, year: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.write(Some(&certificate.pem()), Some(&key.serialize_pem()));
    }

    /// A certificate and a key in PEM, and the certificate in DER.
    pub(crate) fn sign(&self) -> (String, String, CertificateDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (
            certificate.pem(),
            key.serialize_pem(),
            certificate.der().clone(),
        )
    }

    /// The TLS settings of a server on loopback.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        let (_, key, certificate) = self.sign();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Arc::new(config)
    }

    /// Replaces the content of the files.
    pub(crate) fn write(&self, certificate: Option<&str>, key: Option<&str>) {
        for ((_, path), content) in self.settings().into_iter().zip([certificate, key]) {
            if let Some(content) = content {
                // The replacement is atomic, as that of a certificate tool.
                let aside = format!("{path}.new");
                std::fs::write(&aside, content).unwrap();
                std::fs::rename(aside, path).unwrap();
            }
        }
    }
}
