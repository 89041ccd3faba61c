//! What all connections to other machines share, whichever library makes them: proxies and CA certificates.

pub(crate) mod certificates;
mod proxies;

pub(crate) use certificates::use_ring;
pub(crate) use proxies::{NotAProxy, Proxies, VARIABLES as PROXY_VARIABLES, shown as shown_proxy};
