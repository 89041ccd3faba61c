//! Connections: accepting them, TLS, HTTP/1 and HTTP/2, and fair shares of memory and turns. Knows nothing of crates.

mod accept;
mod answer;
mod connection;
mod connections;
mod exchange;
mod http2;
mod peer;
#[cfg(target_os = "linux")]
mod send_file;
mod shares;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use accept::{Drained, ServeOptions, Stack, serve};
pub(crate) use connection::{Common, Limits};
pub(crate) use exchange::{Admission, Answered, Asked, Exchange, Sent, WeakExchange};
pub(crate) use peer::TrustedProxies;
pub(crate) use shares::{Exhausted, Share, Shares, SharesSettings, TakingBack};
pub(crate) use tls::{CertificateError, CurrentCertificate, TlsCertificate};
