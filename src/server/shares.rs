//! Shares of something limited, such as bytes of memory or permits to read. They are fair between peers.
//!
//! - A peer that is alone may have everything.
//! - While somebody waits, each peer's fair share is the capacity divided by the number of peers. The peer that has least
//!   gets the next share.
//! - While somebody waits, slow answers are cut. An answer is slow if its client reads less than a set pace. The pace is
//!   watched for 1 s if the peer has more than its fair share and the waiting peer has less, and for 8 s otherwise.
//! - If that is not enough for a waiting peer below its fair share, the slowest answers of peers above theirs are cut, too,
//!   if the settings allow it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::exchange::Exchange;
use super::share_table::{Claim, LITTLE, SharesSettings, Table, TakingBack, User, Waiter};

/// How often those who wait look for shares that others must give back.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How many requests may wait at a time, all together.
const WAITING_MAX: usize = 1_024;

/// How many requests of one peer may always wait.
const WAITING_OF_ONE_PEER_MIN: usize = 24;

/// There was no share in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("others have everything, and gave nothing back in time")]
pub(crate) struct Exhausted;

/// Something limited that is shared. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shares(Arc<Pool>);

struct Pool {
    settings: SharesSettings,
    table: Mutex<Table>,
}

/// A share. It is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Shares,
    number: u64,
}

impl Shares {
    /// Nobody has a share yet.
    pub(crate) fn new(settings: SharesSettings) -> Self {
        Self(Arc::new(Pool {
            settings,
            table: Mutex::new(Table::new()),
        }))
    }

    /// Gives an exchange so much until it ends, if that needs no waiting. It comes out of the connection's allowance, or is a
    /// share.
    pub(crate) fn try_keep(&self, exchange: &Exchange, amount: u64) -> bool {
        let keep = |share| exchange.keep(share);
        self.try_keep_free(exchange, amount) || self.try_take(exchange, amount).map(keep).is_some()
    }

    /// Gives an exchange so much until it ends, out of the connection's allowance.
    pub(crate) fn try_keep_free(&self, exchange: &Exchange, amount: u64) -> bool {
        exchange.take_allowance(amount, self.0.settings.connection_free)
    }

    /// The same as [`Shares::try_keep`], for an exchange that may wait.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub(crate) async fn keep(&self, exchange: &Exchange, amount: u64) -> Result<(), Exhausted> {
        if !self.try_keep_free(exchange, amount) {
            exchange.keep(self.take(exchange, amount).await?);
        }
        Ok(())
    }

    /// A share of so much for an exchange, if that needs no waiting.
    pub(crate) fn try_take(&self, exchange: &Exchange, amount: u64) -> Option<Share> {
        let claim = self.claim(exchange, amount);
        let number = {
            let mut table = self.0.table.lock();
            if !table.waiters.is_empty() || !table.fits(&claim, &self.0.settings) {
                return None;
            }
            let number = table.number();
            table.grant(number, claim, exchange.downgrade());
            number
        };
        Some(self.share(number))
    }

    /// The same for an exchange that may wait for its turn.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub(crate) async fn take(&self, exchange: &Exchange, amount: u64) -> Result<Share, Exhausted> {
        if let Some(share) = self.try_take(exchange, amount) {
            return Ok(share);
        }
        let claim = self.claim(exchange, amount);
        let (tell, mut told) = oneshot::channel();
        let number = {
            let mut table = self.0.table.lock();
            let of_peer = |waiter: &&Waiter| waiter.claim.peer == claim.peer;
            let waiting = table.waiters.iter().filter(of_peer).count();
            let waiting_max = (WAITING_MAX / table.peers_now(&claim)).max(WAITING_OF_ONE_PEER_MIN);
            if waiting >= waiting_max {
                return Err(Exhausted);
            }
            let number = table.number();
            table.waiters.push_back(Waiter {
                number,
                claim,
                user: exchange.downgrade(),
                tell,
            });
            // It may fit at once, if those before it wait only because of the limit of their connection.
            table.share_out(&self.0.settings);
            number
        };
        let waiting = Waiting {
            shares: self,
            number,
        };
        let until = Instant::now() + self.0.settings.wait_max;
        loop {
            let next = (Instant::now() + LOOK_EVERY).min(until);
            match tokio::time::timeout_at(next, &mut told).await {
                Ok(Ok(())) => {
                    std::mem::forget(waiting);
                    return Ok(self.share(number));
                }
                Ok(Err(_refused)) => return Err(Exhausted),
                Err(_elapsed) if next == until => return Err(Exhausted),
                Err(_elapsed) => self.take_back(),
            }
        }
    }

    /// Whether the peer of this exchange would have no more than its fair share with so much more.
    pub(crate) fn is_fair(&self, exchange: &Exchange, amount: u64) -> bool {
        let claim = self.claim(exchange, amount);
        self.0.table.lock().is_fair(&claim, &self.0.settings)
    }

    /// How much is in use.
    pub(crate) fn used(&self) -> u64 {
        self.0.table.lock().used
    }

    /// How much is in use, and the most that was in use since the last call.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let mut table = self.0.table.lock();
        let used = table.used;
        (used, std::mem::replace(&mut table.peak, used))
    }

    fn claim(&self, exchange: &Exchange, amount: u64) -> Claim {
        let settings = &self.0.settings;
        Claim {
            peer: exchange.peer(),
            connection: exchange.connection().number,
            // A claim beyond the capacity gets the capacity, less a little that others may keep for long.
            amount: amount.min(settings.capacity - settings.capacity / LITTLE),
        }
    }

    fn share(&self, number: u64) -> Share {
        Share {
            shares: self.clone(),
            number,
        }
    }

    /// Cuts answers so that those who wait get their shares.
    fn take_back(&self) {
        let TakingBack::From { pace_min, age_min } = self.0.settings.taking_back else {
            return;
        };
        let now = Instant::now();
        // An exchange that ends gives its shares back, and needs the lock for that. So the exchanges that were looked at are
        // dropped after the lock.
        let mut seen = Vec::new();
        {
            let mut table = self.0.table.lock();
            if now.duration_since(table.looked) < LOOK_EVERY / 2 {
                return;
            }
            table.looked = now;
            table.cut_victims(now, (pace_min, age_min), &self.0.settings, &mut seen);
        }
        drop(seen);
    }
}

impl fmt::Debug for Shares {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Shares")
            .field(&self.0.settings)
            .finish()
    }
}

impl Share {
    /// Gives a part of it back and keeps so much.
    pub(crate) fn shrink_to(&mut self, left: u64) {
        let mut table = self.shares.0.table.lock();
        let Some(holder) = table.holders.get_mut(&self.number) else {
            return;
        };
        let returned = holder.claim.amount.saturating_sub(left);
        holder.claim.amount -= returned;
        let claim = holder.claim;
        table.give_back(&claim, returned);
        table.share_out(&self.shares.0.settings);
    }

    /// Lets another answer use it that sends the same bytes. Returns false if its answers are being cut.
    pub(crate) fn use_for(&self, exchange: &Exchange) -> bool {
        let mut table = self.shares.0.table.lock();
        let holder = table.holders.get_mut(&self.number);
        let Some(holder) = holder.filter(|holder| holder.told.is_none()) else {
            return false;
        };
        // Drops ended users now and then, so that a file that is always on its way does not collect them.
        if holder.users.len() == holder.users.capacity() {
            holder.users.retain(|user| user.exchange.is_under_way());
        }
        let user = User::new(exchange.downgrade(), exchange.peer());
        holder.users.push(user);
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let settings = self.shares.0.settings;
        self.shares.0.table.lock().release(self.number, &settings);
    }
}

/// A place in the queue. Dropping this gives it up.
struct Waiting<'a> {
    shares: &'a Shares,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut table = self.shares.0.table.lock();
        let waits = table
            .waiters
            .iter()
            .position(|waiter| waiter.number == self.number);
        match waits {
            Some(place) => drop(table.waiters.remove(place)),
            // It got a share at this very moment.
            None => table.release(self.number, &self.shares.0.settings),
        }
    }
}
