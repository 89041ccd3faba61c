//! The table of shares of a limited thing: the holders, the waiting requests, and the answers that must give a share
//! back.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::exchange::{Exchange, WeakExchange};
use super::peer::Peer;

/// A fast hash: every index file of more than a few kilobytes passes through these tables.
type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// How long the pace of an answer is measured before it can count as slow. Some clients read 64 kB at a time: at 8 kB/s
/// they read once within this time.
const PACE_WATCHED_MIN: Duration = Duration::from_secs(8);

/// The same for an answer of a peer above its fair share while a peer below its fair share waits.
const PACE_OF_GREEDY_WATCHED_MIN: Duration = Duration::from_secs(1);

/// This many bytes are sent at once, even if the client reads nothing: into the system's buffers on both sides.
const BYTES_AT_ONCE: u64 = 256 * 1024;

/// How long a cut answer may take to give its share back. Bytes in the buffers of HTTP/2 are freed only when the client
/// reads, or with the connection.
const LEAVING_MAX: Duration = Duration::from_millis(500);

/// This fraction counts as little.
pub(super) const LITTLE: u64 = 16;

/// What is shared, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharesSettings {
    /// The capacity.
    pub(crate) capacity: u64,
    /// The part of it that one connection may have.
    pub(crate) connection_max: u64,
    /// How much each connection has besides the capacity.
    pub(crate) connection_free: u64,
    /// How long a request may wait for its share.
    pub(crate) wait_max: Duration,
    /// Which answers must give shares back while requests wait.
    pub(crate) taking_back: TakingBack,
}

/// Which answers must give shares back while requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakingBack {
    /// None: every answer gives its share back soon.
    Never,
    /// Slow answers. For a peer below its fair share, also the slowest answers of peers above theirs.
    From {
        /// An answer whose client reads fewer bytes a second is slow.
        pace_min: u64,
        /// How long a peer above its fair share keeps a share at least.
        age_min: Duration,
    },
}

/// See the module.
pub(super) struct Table {
    pub(super) used: u64,
    /// The largest use since the last call.
    pub(super) peak: u64,
    next: u64,
    peers: HashMap<Peer, u64>,
    /// By connection and peer: a proxy may send requests of many clients on one connection.
    connections: HashMap<(u64, Peer), u64>,
    pub(super) holders: HashMap<u64, Holder>,
    pub(super) waiters: VecDeque<Waiter>,
    pub(super) looked: Instant,
}

/// The wish of an exchange.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    pub(super) peer: Peer,
    pub(super) connection: u64,
    pub(super) amount: u64,
}

/// A share that was given.
pub(super) struct Holder {
    pub(super) claim: Claim,
    since: Instant,
    /// The answers that use it. Several answers with the same bytes share it.
    pub(super) users: Vec<User>,
    /// When its answers were cut.
    pub(super) told: Option<Instant>,
}

/// An answer that uses a share.
pub(super) struct User {
    pub(super) exchange: WeakExchange,
    peer: Peer,
    /// When a request first waited for it, and how many bytes were sent until then.
    watched: Option<(Instant, u64)>,
    since: Instant,
}

/// An exchange that waits for a share.
pub(super) struct Waiter {
    pub(super) number: u64,
    pub(super) claim: Claim,
    pub(super) user: WeakExchange,
    pub(super) tell: oneshot::Sender<()>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            used: 0,
            peak: 0,
            next: 0,
            peers: HashMap::default(),
            connections: HashMap::default(),
            holders: HashMap::default(),
            waiters: VecDeque::new(),
            looked: Instant::now(),
        }
    }

    /// A number that no other share or waiter has.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn of_peer(&self, peer: Peer) -> u64 {
        self.peers.get(&peer).copied().unwrap_or(0)
    }

    pub(super) fn fits(&self, claim: &Claim, settings: &SharesSettings) -> bool {
        self.used + claim.amount <= settings.capacity && self.fits_connection(claim, settings)
    }

    fn fits_connection(&self, claim: &Claim, settings: &SharesSettings) -> bool {
        // A limit as large as the capacity never applies.
        settings.connection_max >= settings.capacity || {
            let connection = self
                .connections
                .get(&(claim.connection, claim.peer))
                .copied();
            let connection = connection.unwrap_or(0);
            // One large answer may exceed the limit if the connection has nothing else.
            connection + claim.amount <= settings.connection_max
                || connection <= settings.connection_max / LITTLE
        }
    }

    pub(super) fn grant(&mut self, number: u64, claim: Claim, user: WeakExchange) {
        self.used += claim.amount;
        self.peak = self.peak.max(self.used);
        *self.peers.entry(claim.peer).or_default() += claim.amount;
        let connection = (claim.connection, claim.peer);
        *self.connections.entry(connection).or_default() += claim.amount;
        let holder = Holder {
            claim,
            since: Instant::now(),
            users: vec![User::new(user, claim.peer)],
            told: None,
        };
        self.holders.insert(number, holder);
    }

    /// Takes this much of a share back.
    pub(super) fn give_back(&mut self, claim: &Claim, amount: u64) {
        self.used = self.used.saturating_sub(amount);
        subtract(&mut self.peers, claim.peer, amount);
        subtract(
            &mut self.connections,
            (claim.connection, claim.peer),
            amount,
        );
    }

    pub(super) fn release(&mut self, number: u64, settings: &SharesSettings) {
        if let Some(holder) = self.holders.remove(&number) {
            self.give_back(&holder.claim, holder.claim.amount);
            self.share_out(settings);
        }
    }

    /// Gives free shares to the waiting requests. The peer with the least comes first.
    pub(super) fn share_out(&mut self, settings: &SharesSettings) {
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

    /// How many peers have a share or wait for one, this one included.
    pub(super) fn peers_now(&self, claim: &Claim) -> usize {
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

    pub(super) fn is_fair(&self, claim: &Claim, settings: &SharesSettings) -> bool {
        // A peer with nothing may have one large answer.
        let has = self.of_peer(claim.peer);
        has == 0 || has + claim.amount <= self.fair_share(claim, settings)
    }

    /// Cuts answers, so that the next waiting request gets its share. All exchanges that were read go into `seen`.
    pub(super) fn cut_victims(
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
            // Other peers may read the same bytes, and are not greedy.
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

impl User {
    pub(super) fn new(exchange: WeakExchange, peer: Peer) -> Self {
        Self {
            exchange,
            peer,
            watched: None,
            since: Instant::now(),
        }
    }
}

/// How fast the fastest client of a share reads its answer, in bytes per second.
#[derive(Clone, Copy)]
struct Pace {
    /// The pace since a request first waited. The client may have paused since.
    since_watched: u64,
    /// The better of that pace and the pace since the beginning. The mirror itself may have been slow since.
    best: u64,
    /// How long it was watched.
    watched: Duration,
}

impl Holder {
    /// `None` if the client waits for the mirror, or if no answer uses the share.
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
