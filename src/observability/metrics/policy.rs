//! What the policy has changed or refused, or would have.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Where a client meets the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PolicySurface {
    /// An index file.
    Sparse,
    /// A fetch of the git index.
    Git,
    /// An answer of the web API.
    Api,
    /// A crate file.
    Download,
}

impl PolicySurface {
    const ALL: [Self; 4] = [Self::Sparse, Self::Git, Self::Api, Self::Download];

    fn name(self) -> &'static str {
        match self {
            Self::Sparse => "sparse",
            Self::Git => "git",
            Self::Api => "api",
            Self::Download => "download",
        }
    }
}

/// Answers that the policy has changed or refused: by the state of a version, the surface and the mode. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyMetrics {
    answers: Family<Labels, Counter>,
}

type Labels = [(&'static str, &'static str); 3];

fn labels(state: &'static str, surface: PolicySurface, mode: &'static str) -> Labels {
    let surface = surface.name();
    [("state", state), ("surface", surface), ("mode", mode)]
}

impl PolicyMetrics {
    /// Counts an answer. `state` and `mode` are names from short lists.
    pub(crate) fn count(&self, state: &'static str, surface: PolicySurface, mode: &'static str) {
        self.answers
            .get_or_create(&labels(state, surface, mode))
            .inc();
    }

    /// Begins to count from 0 in this mode: a count that begins with 1 is no increase for Prometheus.
    pub(crate) fn begin(&self, mode: &'static str) {
        for state in ["held", "denied", "frozen"] {
            for surface in PolicySurface::ALL {
                drop(self.answers.get_or_create(&labels(state, surface, mode)));
            }
        }
    }

    /// Adds the counts to a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "policy",
            "Refused downloads, and answers in which the policy changed a version, or would have",
            self.answers.clone(),
        );
    }
}
