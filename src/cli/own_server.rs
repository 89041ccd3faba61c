//! Asking the server that runs on this machine with the same settings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;

use crate::app::USER_AGENT;
use crate::config::OwnServer;
use crate::outgoing::{certificates, first_cause};

/// The longest part of an answer that is read. `/readyz` is far below.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A client of the server.
pub(super) struct OwnServerClient {
    client: Client,
    server: OwnServer,
}

/// What the server says.
#[derive(Debug)]
pub(super) struct OwnAnswer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl OwnServerClient {
    /// Makes a client for the server with the settings of the environment.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub(super) fn from_environment() -> Result<Self, String> {
        let server = OwnServer::from_environment().map_err(|error| error.to_string())?;
        if server.listen.port() == 0 {
            return Err(
                "PORT is 0: the system chooses the port, and nothing else knows it".to_owned(),
            );
        }
        let builder = || {
            Client::builder()
                .user_agent(USER_AGENT)
                .redirect(Policy::none())
                // The way to this machine never leads through a proxy.
                .no_proxy()
                // The certificate is for the server's public name, and may be from a private authority. The connection
                // ends on this machine and carries no secret, so there is nothing that a check would protect.
                .tls_danger_accept_invalid_certs(true)
        };
        Ok(Self {
            client: certificates::build(builder).map_err(|error| error.to_string())?,
            server,
        })
    }

    /// `GET`s a path. `time_max` includes everything.
    ///
    /// # Errors
    /// Why there is no answer, in one line.
    pub(super) async fn get(&self, path: &str, time_max: Duration) -> Result<OwnAnswer, String> {
        let trying = async {
            let mut why = String::new();
            // The first address that accepts a connection is asked.
            for address in addresses_of(self.server.listen) {
                match self.get_at(address, path).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => why = format!("{address}: {}", first_cause(&error.without_url())),
                }
            }
            Err(why)
        };
        let answer = tokio::time::timeout(time_max, trying).await;
        answer.unwrap_or_else(|_elapsed| Err(format!("no answer within {time_max:?}")))
    }

    async fn get_at(&self, address: SocketAddr, path: &str) -> reqwest::Result<OwnAnswer> {
        let scheme = if self.server.tls { "https" } else { "http" };
        let url = format!("{scheme}://{address}{path}");
        let mut response = self.client.get(url).send().await?;
        let mut body = Vec::new();
        while body.len() < ANSWER_BYTES_MAX
            && let Some(chunk) = response.chunk().await?
        {
            body.extend_from_slice(&chunk);
        }
        let status = response.status().as_u16();
        Ok(OwnAnswer { status, body })
    }
}

/// Where a server that listens on an address can be reached on this machine.
fn addresses_of(listen: SocketAddr) -> Vec<SocketAddr> {
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let addresses: &[IpAddr] = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => &[v4],
        // It listens on IPv4, too. A container may have no IPv6 on its loopback.
        IpAddr::V6(address) if address.is_unspecified() => &[v6, v4],
        other => &[other],
    };
    let with_port = |address: &IpAddr| SocketAddr::new(*address, listen.port());
    addresses.iter().map(with_port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:80", &["127.0.0.1:80"][..]),
            ("[::]:80", &["[::1]:80", "127.0.0.1:80"]),
            ("192.0.2.7:80", &["192.0.2.7:80"]),
        ] {
            let addresses = addresses_of(listen.parse().unwrap());
            let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            assert_eq!(shown, asked);
        }
    }
}
