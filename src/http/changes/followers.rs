//! How many clients of one peer follow the change feed. Followers stay for hours, so no peer may have many places.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::http::error::ApiError;
use crate::server::{Exchange, Peer};

/// The most followers of one peer.
const OF_ONE_PEER_MAX: usize = 32;

/// The number of followers of each peer. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Followers(Arc<Mutex<HashMap<Peer, usize>>>);

/// A place among the followers, until this is dropped.
#[derive(Debug)]
pub(super) struct Follower {
    followers: Followers,
    peer: Peer,
}

impl Followers {
    /// A place for the client of an exchange.
    ///
    /// # Errors
    /// [`ApiError::Busy`], if its peer has too many.
    pub(super) fn admit(&self, exchange: &Exchange) -> Result<Follower, ApiError> {
        let peer = exchange.peer();
        let mut of_peers = self.0.lock();
        let of_peer = of_peers.entry(peer).or_default();
        if *of_peer >= OF_ONE_PEER_MAX {
            return Err(ApiError::Busy);
        }
        *of_peer += 1;
        Ok(Follower {
            followers: self.clone(),
            peer,
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut of_peers = self.followers.0.lock();
        if let Some(of_peer) = of_peers.get_mut(&self.peer) {
            *of_peer = of_peer.saturating_sub(1);
            if *of_peer == 0 {
                of_peers.remove(&self.peer);
            }
        }
    }
}
