//! Connections: accepting them, TLS, HTTP/1 and HTTP/2, and fair shares of memory and permits.
//!
//! It knows nothing of crates. For each request it calls an [`Application`].

mod accept;
mod answer_body;
mod application;
mod certificate_expiry;
mod connection;
mod connection_table;
mod exchange;
mod http1;
mod http2;
mod peer;
#[cfg(target_os = "linux")]
mod send_file;
mod settings;
mod share_table;
mod shares;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use accept::{Drained, serve};
pub(crate) use application::{Admission, Answered, Application, Asked};
pub(crate) use exchange::{Exchange, Sent, WeakExchange};
pub(crate) use peer::{Peer, TrustedProxies};
pub(crate) use settings::{Limits, ServerSettings};
pub(crate) use share_table::{SharesSettings, TakingBack};
pub(crate) use shares::{Exhausted, Share, Shares};
pub(crate) use tls::{CertificateError, CurrentCertificate, TlsCertificate};
