//! Connections on their own, with a service made for the test.

mod accepting;
mod bounds;
mod first_bytes;
mod sharing;
mod steady;

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;

use super::exchange::{Connection, Draining, Exchange};
use super::settings::Serving;
use super::{
    Answered, Application, Asked, Limits, ServerSettings, Shares, SharesSettings, TakingBack,
    TrustedProxies,
};

/// An application that answers every request with what `answer` makes of its path.
fn application(answer: impl Fn(&str) -> Body + Clone + Send + Sync + 'static) -> impl Application {
    move |asked: Asked| {
        let body = answer(asked.request.uri().path());
        async move { Answered::from(Response::new(body)) }
    }
}

/// Settings without TLS, for a few connections and with an account that is large enough for all.
fn settings(limits: Limits) -> ServerSettings {
    ServerSettings {
        workers: NonZeroUsize::MIN,
        connections_max: 10,
        connections: Default::default(),
        drain_max: Duration::from_secs(5),
        limits,
        certificate: None,
        account: account(PLENTY),
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

/// A connection that is served with these settings.
fn serving<A>(application: A, settings: ServerSettings, draining: Draining) -> Serving<A> {
    Serving {
        connection: connection_of(1),
        application,
        settings: Arc::new(settings),
        draining,
    }
}

/// The connection of a peer.
fn connection_of(peer: u8) -> Arc<Connection> {
    Connection::new(u64::from(peer), IpAddr::from([192, 0, 2, peer]))
}

/// A request of a peer, on a connection of its own.
fn exchange_of(peer: u8) -> Exchange {
    let connection = connection_of(peer);
    Exchange::begin(&connection, connection.address)
}
