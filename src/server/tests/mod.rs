//! Connections on their own, with a service made for the test.

mod accepting;
mod bounds;
mod first_bytes;
mod sharing;
mod steady;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;

use super::exchange::Connection;
use super::{
    Answered, Asked, Common, Exchange, Limits, Shares, SharesSettings, Stack, TakingBack,
    TrustedProxies,
};

/// A stack that answers every request with what `answer` makes of its path.
fn stack(answer: impl Fn(&str) -> Body + Clone + Send + 'static) -> impl Stack {
    tower::service_fn(move |asked: Asked| {
        let body = answer(asked.request.uri().path());
        async move { Ok(Answered::from(body)) }
    })
}

/// What connections have in common, with an account of so many bytes.
fn common(limits: Limits, account_bytes: u64) -> Common {
    Common {
        limits,
        account: account(account_bytes),
        trusted_proxies: TrustedProxies::default(),
    }
}

fn account(capacity: u64) -> Shares {
    Shares::new(SharesSettings {
        capacity,
        connection_max: capacity,
        connection_free: 0,
        wait_max: Duration::from_secs(10),
        taking_back: TakingBack::From {
            pace_min: 8 * 1024,
            age_min: Duration::from_millis(250),
        },
    })
}

/// More than any of these tests takes.
const PLENTY: u64 = 1 << 30;

/// The connection of a peer.
fn connection_of(peer: u8) -> Arc<Connection> {
    Connection::new(u64::from(peer), IpAddr::from([192, 0, 2, peer]))
}

/// A request of a peer, on a connection of its own.
fn exchange_of(peer: u8) -> Exchange {
    let connection = connection_of(peer);
    Exchange::begin(&connection, connection.address())
}
