//! Shares of something limited: bytes of memory, children, turns to read. Fair between peers.
//!
//! - A peer that is alone may have everything.
//! - While somebody waits, each peer's fair share is the capacity divided by the number of peers. The peer that has
//!   least gets the next share.
//! - While somebody waits, a slow answer is cut. The limit is a set pace. The answer is watched for 1 s if its peer has more
//!   than its fair share and the waiting peer has less, and for 8 s otherwise.
//! - If that is not enough for a waiting peer below its fair share, the slowest answers of peers above theirs are cut,
//!   too, where the settings allow it.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::exchange::{Exchange, WeakExchange};
use super::peer::Peer;

/// Every index file of more than a few kilobytes goes through these, so that hashing shows.
type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// How often those who wait look for shares that can be taken back.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long the pace of an answer is watched before it is judged. Some clients take bytes in lots of 64 kB: within this time
/// one that takes 8 kB/s takes a lot.
const PACE_WATCHED_MIN: Duration = Duration::from_secs(8);

/// The same for an answer of a peer that has more than its fair share, while one waits that has less.
const PACE_OF_GREEDY_WATCHED_MIN: Duration = Duration::from_secs(1);

/// So many bytes go out at once, whatever the client takes: into the buffers of the system on both sides.
const BYTES_AT_ONCE: u64 = 256 * 1024;

/// How long an answer that was cut may take to give its share back. What waits in the buffers of HTTP/2 goes only when the
/// client reads, or with the connection.
const LEAVING_MAX: Duration = Duration::from_millis(500);

/// The part of something that is called little.
const LITTLE: u64 = 16;

/// Requests that may wait at a time: all together, and of one peer at least.
const WAITING_MAX: usize = 1_024;

/// See [`WAITING_MAX`].
const WAITING_OF_ONE_PEER_MIN: usize = 24;

/// What is shared out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharesSettings {
    /// How much of it there is.
    pub(crate) capacity: u64,
    /// How much of it one connection may have.
    pub(crate) connection_max: u64,
    /// How much of it a connection may have beside the capacity.
    pub(crate) connection_free: u64,
    /// How long a request may wait for its share.
    pub(crate) wait_max: Duration,
    /// From whom shares are taken back while others wait.
    pub(crate) taking_back: TakingBack,
}

/// From whom shares are taken back while others wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakingBack {
    /// From nobody: shares are given back soon.
    Never,
    /// From slow answers, and, for a peer below its fair share, from the slowest answers of peers above theirs.
    From {
        /// An answer that is taken at fewer bytes a second is slow.
        pace_min: u64,
        /// How long a peer above its fair share has a share at least.
        age_min: Duration,
    },
}

/// There was no share in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("others have it, and did not give it back in time")]
pub(crate) struct Exhausted;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shares(Arc<Pool>);

struct Pool {
    settings: SharesSettings,
    table: Mutex<Table>,
}

struct Table {
    used: u64,
    /// The most that was used since somebody asked.
    peak: u64,
    next: u64,
    peers: HashMap<Peer, u64>,
    /// By connection and peer: a proxy may send requests of many clients on one connection.
    connections: HashMap<(u64, Peer), u64>,
    holders: HashMap<u64, Holder>,
    waiters: VecDeque<Waiter>,
    looked: Instant,
}

#[derive(Clone, Copy)]
struct Claim {
    peer: Peer,
    connection: u64,
    amount: u64,
}

struct Holder {
    claim: Claim,
    since: Instant,
    /// The answers that use it: several, where they are made of the same bytes.
    users: Vec<User>,
    /// When its answers were told to end.
    told: Option<Instant>,
}

struct User {
    exchange: WeakExchange,
    peer: Peer,
    /// When somebody first had to wait for it, and what had been sent until then.
    watched: Option<(Instant, u64)>,
    since: Instant,
}

struct Waiter {
    number: u64,
    claim: Claim,
    user: WeakExchange,
    tell: oneshot::Sender<()>,
}

/// A share. It is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Shares,
    number: u64,
}

impl Shares {
    /// All of it is there.
    pub(crate) fn new(settings: SharesSettings) -> Self {
        Self(Arc::new(Pool {
            settings,
            table: Mutex::new(Table {
                used: 0,
                peak: 0,
                next: 0,
                peers: HashMap::default(),
                connections: HashMap::default(),
                holders: HashMap::default(),
                waiters: VecDeque::new(),
                looked: Instant::now(),
            }),
        }))
    }

    /// Gives an exchange so much until it ends, if that needs no waiting: out of what its connection has for itself, or a
    /// share.
    pub(crate) fn try_keep(&self, exchange: &Exchange, amount: u64) -> bool {
        if self.try_keep_free(exchange, amount) {
            return true;
        }
        let share = self.try_take(exchange, amount);
        let is_kept = share.is_some();
        if let Some(share) = share {
            exchange.keep(share);
        }
        is_kept
    }

    /// Gives an exchange so much until it ends, out of what its connection has for itself.
    pub(crate) fn try_keep_free(&self, exchange: &Exchange, amount: u64) -> bool {
        exchange.take_allowance(amount, self.0.settings.connection_free)
    }

    /// The same as [`Shares::try_keep`], for one that may wait.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub(crate) async fn keep(&self, exchange: &Exchange, amount: u64) -> Result<(), Exhausted> {
        if !self.try_keep_free(exchange, amount) {
            exchange.keep(self.take(exchange, amount).await?);
        }
        Ok(())
    }

    /// A share of so much for an exchange, if it can be had without waiting.
    pub(crate) fn try_take(&self, exchange: &Exchange, amount: u64) -> Option<Share> {
        let claim = self.claim(exchange, amount);
        let number = {
            let mut table = self.table();
            if !table.waiters.is_empty() || !table.fits(&claim, &self.0.settings) {
                return None;
            }
            let number = table.number();
            table.grant(number, claim, exchange.downgrade());
            number
        };
        Some(self.share(number))
    }

    /// The same, for one that may wait; in its turn.
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
            let mut table = self.table();
            let mut waiting = 0;
            for waiter in &table.waiters {
                waiting += usize::from(waiter.claim.peer == claim.peer);
            }
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
            // It may fit, where only another connection's limit keeps those before it waiting.
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
        self.table().is_fair(&claim, &self.0.settings)
    }

    /// How much is in use, and the most that was since the last call.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let mut table = self.table();
        let used = table.used;
        (used, std::mem::replace(&mut table.peak, used))
    }

    fn claim(&self, exchange: &Exchange, amount: u64) -> Claim {
        let settings = &self.0.settings;
        Claim {
            peer: exchange.peer(),
            connection: exchange.connection().number(),
            // A request for more than the capacity gets the capacity, less a little that others may have for long.
            amount: amount.min(settings.capacity - settings.capacity / LITTLE),
        }
    }

    fn share(&self, number: u64) -> Share {
        Share {
            shares: self.clone(),
            number,
        }
    }

    /// Cuts answers, so that those who wait get their shares.
    fn take_back(&self) {
        let TakingBack::From { pace_min, age_min } = self.0.settings.taking_back else {
            return;
        };
        let now = Instant::now();
        // An exchange that ends gives its shares back, for which it needs the lock. So every exchange that was looked at
        // is let go of after the lock.
        let mut seen = Vec::new();
        {
            let mut table = self.table();
            if now.duration_since(table.looked) < LOOK_EVERY / 2 {
                return;
            }
            table.looked = now;
            table.cut_victims(now, (pace_min, age_min), &self.0.settings, &mut seen);
        }
        drop(seen);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing below can panic half-way.
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Table {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn of_peer(&self, peer: Peer) -> u64 {
        self.peers.get(&peer).copied().unwrap_or(0)
    }

    fn fits(&self, claim: &Claim, settings: &SharesSettings) -> bool {
        self.used + claim.amount <= settings.capacity && self.fits_connection(claim, settings)
    }

    fn fits_connection(&self, claim: &Claim, settings: &SharesSettings) -> bool {
        // With the limit at the capacity nothing is counted.
        settings.connection_max >= settings.capacity || {
            let connection = self
                .connections
                .get(&(claim.connection, claim.peer))
                .copied();
            let connection = connection.unwrap_or(0);
            // One large answer may go beyond the limit, where it is all that the connection has.
            connection + claim.amount <= settings.connection_max
                || connection <= settings.connection_max / LITTLE
        }
    }

    fn grant(&mut self, number: u64, claim: Claim, user: WeakExchange) {
        self.used += claim.amount;
        self.peak = self.peak.max(self.used);
        *self.peers.entry(claim.peer).or_default() += claim.amount;
        let connection = (claim.connection, claim.peer);
        *self.connections.entry(connection).or_default() += claim.amount;
        let since = Instant::now();
        let user = User {
            exchange: user,
            peer: claim.peer,
            watched: None,
            since,
        };
        self.holders.insert(
            number,
            Holder {
                claim,
                since,
                users: vec![user],
                told: None,
            },
        );
    }

    /// Gives so much of a share back.
    fn give_back(&mut self, claim: &Claim, amount: u64) {
        self.used = self.used.saturating_sub(amount);
        subtract(&mut self.peers, claim.peer, amount);
        subtract(
            &mut self.connections,
            (claim.connection, claim.peer),
            amount,
        );
    }

    fn release(&mut self, number: u64, settings: &SharesSettings) {
        if let Some(holder) = self.holders.remove(&number) {
            self.give_back(&holder.claim, holder.claim.amount);
            self.share_out(settings);
        }
    }

    /// Gives what is there to those who wait, the peer with the least first.
    fn share_out(&mut self, settings: &SharesSettings) {
        while let Some(place) = self.next_in_turn(settings) {
            let fits = self
                .waiters
                .get(place)
                .is_some_and(|waiter| self.fits(&waiter.claim, settings));
            let Some(waiter) = fits.then(|| self.waiters.remove(place)).flatten() else {
                return;
            };
            self.grant(waiter.number, waiter.claim, waiter.user);
            if waiter.tell.send(()).is_err()
                && let Some(holder) = self.holders.remove(&waiter.number)
            {
                self.give_back(&holder.claim, holder.claim.amount);
            }
        }
    }

    fn next_in_turn(&self, settings: &SharesSettings) -> Option<usize> {
        let waiters = self.waiters.iter().enumerate();
        waiters
            .filter(|(_place, waiter)| self.fits_connection(&waiter.claim, settings))
            .min_by_key(|(place, waiter)| {
                let claim = &waiter.claim;
                (self.of_peer(claim.peer) + claim.amount, *place)
            })
            .map(|(place, _waiter)| place)
    }

    /// Peers that have something or wait for something, this one included.
    fn peers_now(&self, claim: &Claim) -> usize {
        let mut waiting: Vec<Peer> = self
            .waiters
            .iter()
            .map(|waiter| waiter.claim.peer)
            .chain([claim.peer])
            .filter(|peer| !self.peers.contains_key(peer))
            .collect();
        waiting.sort_unstable();
        waiting.dedup();
        self.peers.len() + waiting.len()
    }

    fn fair_share(&self, claim: &Claim, settings: &SharesSettings) -> u64 {
        settings.capacity / u64::try_from(self.peers_now(claim)).unwrap_or(u64::MAX)
    }

    fn is_fair(&self, claim: &Claim, settings: &SharesSettings) -> bool {
        // A peer that has nothing may have one large answer.
        let has = self.of_peer(claim.peer);
        has == 0 || has + claim.amount <= self.fair_share(claim, settings)
    }

    /// Cuts answers, so that the next one in turn gets its share. All exchanges that were looked at go into `seen`.
    fn cut_victims(
        &mut self,
        now: Instant,
        (pace_min, age_min): (u64, Duration),
        settings: &SharesSettings,
        seen: &mut Vec<Exchange>,
    ) {
        let Some(claim) = self
            .next_in_turn(settings)
            .and_then(|place| Some(self.waiters.get(place)?.claim))
        else {
            return;
        };
        let mut leaving = 0;
        for holder in self.holders.values_mut() {
            let Some(told) = &mut holder.told else {
                continue;
            };
            if now.duration_since(*told) > LEAVING_MAX {
                *told = now;
                for exchange in holder.users.iter().filter_map(|user| user.exchange.get()) {
                    exchange.connection().end();
                    seen.push(exchange);
                }
            }
            leaving += holder.claim.amount;
        }
        let free = settings.capacity.saturating_sub(self.used);
        let mut wanted = claim.amount.saturating_sub(free + leaving);
        if wanted == 0 {
            return;
        }
        let fair_share = self.fair_share(&claim, settings);
        let is_fair = self.is_fair(&claim, settings);
        let mut candidates = Vec::new();
        for (number, holder) in &mut self.holders {
            if holder.told.is_some() {
                continue;
            }
            let Some(pace) = holder.pace(now, seen) else {
                continue;
            };
            // Innocent peers may take the same bytes.
            let is_greedy = is_fair
                && holder.users.iter().all(|user| {
                    let of_peer = self.peers.get(&user.peer).copied();
                    of_peer.unwrap_or(0) > fair_share
                });
            let is_slow = if is_greedy {
                pace.watched >= PACE_OF_GREEDY_WATCHED_MIN && pace.since_watched < pace_min
            } else {
                pace.watched >= PACE_WATCHED_MIN && pace.best < pace_min
            };
            let is_old = now.duration_since(holder.since) >= age_min;
            if is_slow || is_greedy && is_old {
                candidates.push((pace.best, *number));
            }
        }
        candidates.sort_unstable();
        for (_pace, number) in candidates {
            if wanted == 0 {
                break;
            }
            if let Some(holder) = self.holders.get_mut(&number) {
                holder.told = Some(now);
                wanted = wanted.saturating_sub(holder.claim.amount);
                for exchange in holder.users.iter().filter_map(|user| user.exchange.get()) {
                    exchange.cut();
                    seen.push(exchange);
                }
            }
        }
    }
}

/// How fast the fastest client of a share takes its answer, in bytes per second.
#[derive(Clone, Copy)]
struct Pace {
    /// Since somebody first waited. The client may have paused.
    since_watched: u64,
    /// The better of that and of the time since the beginning, in which the answer may have been made.
    best: u64,
    /// How long it was watched.
    watched: Duration,
}

impl Holder {
    /// `None` if something has to be made first before the client can take more, or if no answer uses it.
    fn pace(&mut self, now: Instant, seen: &mut Vec<Exchange>) -> Option<Pace> {
        self.users.retain(|user| user.exchange.is_under_way());
        let mut fastest: Option<Pace> = None;
        for user in &mut self.users {
            let exchange = user.exchange.get()?;
            let (waits, sent) = (exchange.waits_for_client(), exchange.sent());
            seen.push(exchange);
            if !waits {
                return None;
            }
            let (watched, sent_before) = *user.watched.get_or_insert((now, sent));
            let watched = now.duration_since(watched);
            let since_start = rate(
                sent.saturating_sub(BYTES_AT_ONCE),
                now.duration_since(user.since),
            );
            let since_watched = rate(sent.saturating_sub(sent_before), watched);
            let pace = Pace {
                since_watched,
                best: since_start.max(since_watched),
                watched,
            };
            if fastest.is_none_or(|fastest| fastest.best < pace.best) {
                fastest = Some(pace);
            }
        }
        fastest
    }
}

fn rate(bytes: u64, time: Duration) -> u64 {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1_000) / milliseconds
}

fn subtract<K: Eq + std::hash::Hash>(amounts: &mut HashMap<K, u64>, key: K, amount: u64) {
    if let Entry::Occupied(mut entry) = amounts.entry(key) {
        let left = entry.get().saturating_sub(amount);
        if left == 0 {
            entry.remove();
        } else {
            entry.insert(left);
        }
    }
}

impl Share {
    /// Gives a part of it back, so that so much is left.
    pub(crate) fn shrink_to(&mut self, left: u64) {
        let mut table = self.shares.table();
        let Some(holder) = table.holders.get_mut(&self.number) else {
            return;
        };
        let returned = holder.claim.amount.saturating_sub(left);
        holder.claim.amount -= returned;
        let claim = holder.claim;
        table.give_back(&claim, returned);
        table.share_out(&self.shares.0.settings);
    }

    /// Lets another answer use it, which is made of the same bytes. Says no if its answers are about to be cut.
    pub(crate) fn use_for(&self, exchange: &Exchange) -> bool {
        let mut table = self.shares.table();
        let holder = table.holders.get_mut(&self.number);
        let Some(holder) = holder.filter(|holder| holder.told.is_none()) else {
            return false;
        };
        // Those who have ended are forgotten now and then, so that a file which is always on its way gathers none.
        if holder.users.len() == holder.users.capacity() {
            holder.users.retain(|user| user.exchange.is_under_way());
        }
        holder.users.push(User {
            exchange: exchange.downgrade(),
            peer: exchange.peer(),
            watched: None,
            since: Instant::now(),
        });
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let settings = self.shares.0.settings;
        self.shares.table().release(self.number, &settings);
    }
}

/// Somebody who waits. Dropping this ends the waiting.
struct Waiting<'a> {
    shares: &'a Shares,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut table = self.shares.table();
        let waits = table
            .waiters
            .iter()
            .position(|waiter| waiter.number == self.number);
        match waits {
            Some(place) => drop(table.waiters.remove(place)),
            // It was given a share in this very moment.
            None => table.release(self.number, &self.shares.0.settings),
        }
    }
}
