//! Caches that are bounded by the bytes of their values.

use std::hash::Hash;
use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};

/// A cache of values that weigh their bytes.
pub(crate) type BoundedCache<K, V> = Cache<K, Arc<V>, ByBytes>;

/// A value of such a cache.
pub(crate) trait Weighed {
    /// What it takes in memory, with its entry in the cache.
    fn bytes(&self) -> usize;
}

#[derive(Clone, Debug)]
pub(crate) struct ByBytes;

impl<K, V: Weighed> Weighter<K, Arc<V>> for ByBytes {
    fn weight(&self, _key: &K, value: &Arc<V>) -> u64 {
        value.bytes() as u64
    }
}

/// An empty cache for so many bytes. `typical` is how many values it expects. Each of its `parts` has a lock of its own, and
/// the largest value must fit into one.
pub(crate) fn bounded<K: Eq + Hash, V: Weighed>(
    bytes_max: u64,
    typical: usize,
    parts: usize,
) -> BoundedCache<K, V> {
    let mut options = OptionsBuilder::new();
    options
        .estimated_items_capacity(typical)
        .weight_capacity(bytes_max)
        .shards(parts);
    // The build fails only if a capacity is missing.
    options.build().map_or_else(
        |_incomplete| Cache::with_weighter(typical, bytes_max, ByBytes),
        |options| Cache::with_options(options, ByBytes, Default::default(), Default::default()),
    )
}
