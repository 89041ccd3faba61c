//! Which clients count as one, and who the client is behind a proxy.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName};

/// Each proxy appends the address of its own client to this header.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The bits of an IPv6 address that distinguish customers. Each gets at least a /64 (RFC 6177) and may use all of it.
const IPV6_CUSTOMER_BITS: u32 = 64;

/// A client for fair shares: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Peer(u64);

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            // No IPv6 network in use begins with 32 zero bits: ::/8 is reserved (RFC 4291, section 2.4).
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => {
                let high = address.to_bits() >> IPV6_CUSTOMER_BITS;
                u64::try_from(high).unwrap_or_default()
            }
        })
    }
}

/// An address range, like `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    /// IPv4 addresses have their IPv6 form here, `::ffff:a.b.c.d`.
    address: u128,
    bits: u32,
}

/// A text that is neither an address nor a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address or an address range")]
pub(crate) struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_unparsable| NotANetwork)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            // `parse` takes a plus sign.
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().map_err(|_unparsable| NotANetwork)?
            }
            Some(_) => return Err(NotANetwork),
            None => bits_max,
        };
        if bits > bits_max {
            return Err(NotANetwork);
        }
        Ok(Self {
            address: as_ipv6(address),
            bits: 128 - bits_max + bits,
        })
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        let differing = self.address ^ as_ipv6(address);
        // A shift by all 128 bits is not defined.
        differing.checked_shr(128 - self.bits).unwrap_or(0) == 0
    }
}

fn as_ipv6(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The proxies that are trusted to name the client (`TRUSTED_PROXIES`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TrustedProxies(Vec<Network>);

impl FromStr for TrustedProxies {
    type Err = NotANetwork;

    /// Reads addresses and ranges, with commas or spaces between them.
    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        text.split([',', ' ', '\t'])
            .filter(|part| !part.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl TrustedProxies {
    /// Whether this is the address of a trusted proxy.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The client of a request: the last address that is not a trusted proxy. A client can invent the addresses before
    /// it.
    pub(crate) fn client(&self, connected: IpAddr, headers: &HeaderMap) -> IpAddr {
        if self.0.is_empty() || !self.contains(connected) {
            return connected;
        }
        let mut client = connected;
        for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            let Ok(line) = line.to_str() else {
                return client;
            };
            for entry in line.rsplit(',') {
                // Some proxies write `unknown`. Then the proxy that wrote it counts as the client.
                let Some(address) = address_in(entry.trim()) else {
                    return client;
                };
                client = address;
                if !self.contains(address) {
                    return client;
                }
            }
        }
        client
    }
}

/// The address in an entry of the header. Some proxies add a port.
fn address_in(entry: &str) -> Option<IpAddr> {
    let bare = entry
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(entry);
    bare.parse()
        .ok()
        .or_else(|| entry.parse().ok().map(|address: SocketAddr| address.ip()))
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_is_an_ipv4_address_or_an_ipv6_network_of_64_bits() {
        let peer = |text| Peer::from(ip(text));
        assert_eq!(peer("1.2.3.4"), peer("::ffff:1.2.3.4"));
        assert_ne!(peer("1.2.3.4"), peer("1.2.3.5"));
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff::9"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
    }

    #[test]
    fn networks_contain_their_addresses_and_no_others() {
        let proxies: TrustedProxies = "10.0.0.0/8, 192.0.2.7 fd00::/8,::1".parse().unwrap();
        for inside in [
            "10.255.0.1",
            "::ffff:10.1.1.1",
            "192.0.2.7",
            "fd12::1",
            "::1",
        ] {
            assert!(proxies.contains(ip(inside)), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "fe80::1", "::2"] {
            assert!(!proxies.contains(ip(outside)), "{outside}");
        }
        let all: TrustedProxies = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(ip("8.8.8.8")) && !all.contains(ip("2001:db8::1")));
        for bad in [
            "10.0.0.0/33",
            "10.0.0/8",
            "x",
            "::1/129",
            "10.0.0.0/+8",
            "/8",
        ] {
            assert!(bad.parse::<TrustedProxies>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_client_is_the_last_address_that_belongs_to_no_trusted_proxy() {
        let proxies: TrustedProxies = "10.0.0.0/8".parse().unwrap();
        for (connected, lines, client) in [
            ("10.0.0.1", &["1.1.1.1, 2.2.2.2"][..], "2.2.2.2"),
            ("10.0.0.1", &["1.1.1.1", "2.2.2.2, 10.0.0.9"], "2.2.2.2"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["1.1.1.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, unknown, 10.0.0.7"], "10.0.0.7"),
            ("10.0.0.1", &["2.2.2.2:8080"], "2.2.2.2"),
            ("10.0.0.1", &["[2001:db8::1]:80"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("9.9.9.9", &["1.1.1.1"], "9.9.9.9"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
            }
            assert_eq!(
                proxies.client(ip(connected), &headers),
                ip(client),
                "{lines:?}"
            );
        }
        assert_eq!(
            TrustedProxies::default().client(ip("10.0.0.1"), &HeaderMap::new()),
            ip("10.0.0.1")
        );
    }
}
