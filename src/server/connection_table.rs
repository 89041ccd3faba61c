//! The open connections, and the choice of one to close when there are too many.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::exchange::Connection;
use super::peer::Peer;

/// A connection that has had no request for this long is closed first. A younger one may be about to send its request.
const IDLE_MIN: Duration = Duration::from_secs(1);

/// The open connections.
#[derive(Debug)]
pub(crate) struct ConnectionTable {
    /// How many may be open.
    pub(crate) max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Arc<Connection>>,
}

impl ConnectionTable {
    /// An empty table for at most so many connections.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            table: Mutex::default(),
        }
    }

    /// Adds a connection. If there are too many then, this closes another one; `None` if it would have to be the new one.
    pub(crate) fn open(&self, address: IpAddr) -> Option<Arc<Connection>> {
        let mut table = self.table.lock();
        let victim = match table.open.len() >= self.max {
            true => Some(table.victim(Peer::from(address), self.max)?),
            false => None,
        };
        let victim = victim.and_then(|victim| table.open.remove(&victim));
        table.next += 1;
        let connection = Connection::new(table.next, address);
        table
            .open
            .insert(connection.number, Arc::clone(&connection));
        drop(table);
        if let Some(victim) = victim {
            victim.end();
        }
        Some(connection)
    }

    /// Removes a connection that has ended.
    pub(crate) fn forget(&self, connection: &Connection) {
        self.table.lock().open.remove(&connection.number);
    }

    /// The number of open connections.
    pub(crate) fn count(&self) -> usize {
        self.table.lock().open.len()
    }
}

impl Table {
    /// The connection to close for a new one of this peer: the one that has been idle for longest, preferably of the
    /// peer with the most connections. If none is idle, the oldest one of a peer with more than its fair share.
    fn victim(&self, newcomer: Peer, max: usize) -> Option<u64> {
        let mut counts: HashMap<Peer, usize> = HashMap::from([(newcomer, 1)]);
        for connection in self.open.values() {
            *counts.entry(Peer::from(connection.address)).or_default() += 1;
        }
        let fair_share = max / counts.len();
        let now = Instant::now();
        let mut idle: Option<((bool, usize, Duration), u64)> = None;
        let mut busy: Option<((usize, std::cmp::Reverse<u64>), u64)> = None;
        for (number, connection) in &self.open {
            let peer = Peer::from(connection.address);
            let count = counts.get(&peer).copied().unwrap_or(0);
            if let Some(since) = connection.idle_since() {
                let time = now.saturating_duration_since(since);
                let rank = (time >= IDLE_MIN, count, time);
                idle = idle.max(Some((rank, *number)));
            }
            if count > fair_share && peer != newcomer {
                let rank = (count, std::cmp::Reverse(*number));
                busy = busy.max(Some((rank, *number)));
            }
        }
        match (idle, busy) {
            (Some(((true, ..), number)), _) => Some(number),
            (_, Some((_, number))) | (Some((_, number)), None) => Some(number),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::exchange::Exchange;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn numbers(connections: &ConnectionTable) -> Vec<u64> {
        let mut numbers: Vec<u64> = connections.table.lock().open.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_has_been_idle_for_longest_is_closed() {
        let connections = ConnectionTable::new(3);
        let [first, second, _third] =
            [1, 2, 3].map(|peer| connections.open(address(peer)).unwrap());
        tokio::time::advance(Duration::from_secs(5)).await;
        // The first has a request, the second had one until now.
        let _request = Exchange::begin(&first, address(1));
        drop(Exchange::begin(&second, address(2)));
        tokio::time::advance(Duration::from_secs(5)).await;
        connections.open(address(4)).unwrap();
        assert_eq!(numbers(&connections), [1, 2, 4]);
        connections.open(address(5)).unwrap();
        assert_eq!(numbers(&connections), [1, 4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_of_a_peer_with_many_closes_one_of_its_own() {
        let connections = ConnectionTable::new(4);
        let lonely = connections.open(address(1)).unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..20 {
            connections.open(address(2)).unwrap();
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        assert!(numbers(&connections).contains(&lonely.number));
        // Those that are busy make room for another peer, and not for a further one of the same.
        let table = connections.table.lock().open.clone();
        let _busy: Vec<Exchange> = table
            .values()
            .map(|connection| Exchange::begin(connection, connection.address))
            .collect();
        assert!(connections.open(address(2)).is_none());
        assert!(connections.open(address(3)).is_some());
        assert!(numbers(&connections).contains(&lonely.number));
    }
}
