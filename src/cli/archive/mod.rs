//! Archives: one tar file with an index and crate files, for machines without a network.
