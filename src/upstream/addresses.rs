//! Looks up host names, and decides which addresses are private.
//!
//! An upstream on the internet must not redirect the mirror to a private address. Otherwise it could make the mirror send
//! requests to hosts that only the mirror can reach: a neighbour, itself, or the service that gives cloud machines their
//! keys.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::{fmt, io};

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Looks up the addresses of a name, and knows which are private. Tests use their own names and ranges.
#[derive(Clone)]
pub struct Resolver {
    look_up: Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>,
    is_private: fn(IpAddr) -> bool,
}

impl Resolver {
    /// The resolver of the system, with the private ranges of the IANA registries.
    #[must_use]
    pub fn system() -> Self {
        let look_up = |name: String| {
            let looking = async move {
                // The port does not matter here.
                let found = tokio::net::lookup_host((name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            };
            looking.boxed()
        };
        Self {
            look_up: Arc::new(look_up),
            is_private,
        }
    }

    /// A resolver with these addresses and private ranges.
    pub fn custom(
        look_up: impl Fn(&str) -> Vec<IpAddr> + Send + Sync + 'static,
        is_private: fn(IpAddr) -> bool,
    ) -> Self {
        let look_up = move |name: String| std::future::ready(Ok(look_up(&name))).boxed();
        Self {
            look_up: Arc::new(look_up),
            is_private,
        }
    }

    /// Whether an upstream on the internet must not send the mirror to this address.
    pub(super) fn is_private(&self, address: IpAddr) -> bool {
        (self.is_private)(address.to_canonical())
    }

    /// All addresses of a name.
    pub(super) async fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        (self.look_up)(name.to_owned()).await
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Resolver")
    }
}

/// Which upstreams a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upstreams {
    /// Those on the internet. The client never connects to a private address.
    Public,
    /// Those in the operator's own network. They may redirect the mirror to others there.
    Inside,
}

/// Looks up names for a client. URLs with an address instead of a name do not come here.
#[derive(Clone)]
pub(super) struct Names {
    pub(super) resolver: Resolver,
    pub(super) upstreams: Upstreams,
    /// The hosts of the proxies. They may have private addresses, because the operator chose them.
    pub(super) proxies: Arc<[String]>,
}

impl Names {
    /// Whether this is the host of a proxy.
    pub(super) fn is_proxy(&self, host: &str) -> bool {
        let mut proxies = self.proxies.iter();
        proxies.any(|proxy| proxy.eq_ignore_ascii_case(host))
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        let resolving = async move {
            let name = name.as_str();
            let mut addresses = names.resolver.look_up(name).await?;
            if names.upstreams == Upstreams::Public && !names.is_proxy(name) {
                // The client connects only to the addresses returned here, so a later answer of the DNS changes nothing.
                addresses.retain(|address| !names.resolver.is_private(*address));
                if addresses.is_empty() {
                    return Err("it has no public address".into());
                }
            }
            let addresses = addresses
                .into_iter()
                .map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        };
        Box::pin(resolving)
    }
}

/// Whether an address is not on the internet, by IANA's registries of special-purpose addresses. An address of IPv6 can
/// contain one of IPv4, which then decides.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    match (first, second) {
        // This network, private networks and loopback.
        (0 | 10 | 127, _) | (192, 168) | (172, 16..=31) => true,
        // Link-local, with the metadata services of clouds; carrier-grade NAT, with the rest of those; benchmarks.
        (169, 254) | (100, 64..=127) | (198, 18 | 19) => true,
        // IETF protocols, documentation, the old relays from IPv6.
        (192, 0) => matches!(third, 0 | 2),
        (192, 88) => third == 99,
        (198, 51) => third == 100,
        (203, 0) => third == 113,
        // Multicast and reserved addresses.
        _ => first >= 224,
    }
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let [first, second, third, fourth, .., seventh, eighth] = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (first, second) {
        // NAT64 and 6to4 lead to the address of IPv4 inside.
        (0x64, 0xff9b) if third == 0 && fourth == 0 => embedded(seventh, eighth),
        (0x2002, _) => embedded(second, third),
        // Teredo and other protocols, documentation.
        (0x2001, 0x0000..=0x01ff | 0x0db8) => true,
        (0x3fff, 0x0000..=0x0fff) => true,
        // Only this eighth of all addresses is assigned. The rest is loopback, unique local, link-local, multicast and so on.
        _ => first & 0xe000 != 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_told_from_those_on_the_internet() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:db8::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "193.168.0.1",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::",
            "2606:4700:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }
}
