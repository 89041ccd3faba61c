//! What all connections to other machines share, whichever library makes them: proxies and CA certificates.

pub(crate) mod certificates;
mod proxies;

pub(crate) use certificates::use_ring;
pub(crate) use proxies::{NotAProxy, Proxies, VARIABLES as PROXY_VARIABLES, shown as shown_proxy};

/// An error with its causes.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// The first cause of an error: the rule that was broken, or the error of the system.
pub(crate) fn first_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
