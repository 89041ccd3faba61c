//! Fair shares of limited things between peers.

use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::{PLENTY, account, exchange_of};
use crate::server::exchange::Exchange;
use crate::server::{Exhausted, Share, Shares, SharesSettings, TakingBack};

/// An answer in progress with its share. It ends when it is cut.
struct Answering {
    exchange: Option<Exchange>,
    task: JoinHandle<()>,
}

impl Answering {
    /// The answer of a client that was given more than it reads.
    async fn begin(shares: &Shares, peer: u8, amount: u64) -> Self {
        let exchange = exchange_of(peer);
        let share = shares.take(&exchange, amount).await.unwrap();
        Self::with(exchange, share)
    }

    fn with(exchange: Exchange, share: Share) -> Self {
        exchange.keep(share);
        exchange.begin_body(None, None);
        exchange.hand_over(1 << 20);
        let task = {
            let exchange = exchange.clone();
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(exchange);
            })
        };
        let abort: AbortHandle = task.abort_handle();
        exchange.ends_by(abort);
        Self {
            exchange: None,
            task,
        }
        .seen(exchange)
    }

    fn seen(mut self, exchange: Exchange) -> Self {
        self.exchange = Some(exchange);
        self
    }

    /// The client reads this much.
    fn take(&self, bytes: usize) {
        if let Some(exchange) = &self.exchange {
            exchange.note_sent(bytes);
        }
    }

    /// Whether the answer was cut. Then its share is given back.
    async fn is_cut(&mut self) -> bool {
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        let is_cut = self.task.is_finished();
        if is_cut {
            self.exchange = None;
        }
        is_cut
    }
}

/// Lets time pass, and drops answers that were cut in that time.
async fn pass(time: Duration, answers: &mut [Answering]) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
        for answer in answers.iter_mut() {
            answer.is_cut().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_alone_gets_everything_and_a_returned_share_goes_to_the_waiter() {
    let shares = account(100);
    let exchange = exchange_of(1);
    let all = [50, 50].map(|half| shares.try_take(&exchange, half).unwrap());
    assert!(shares.try_take(&exchange, 1).is_none());
    let waiting = {
        let shares = shares.clone();
        tokio::spawn(async move { shares.take(&exchange_of(2), 60).await })
    };
    tokio::task::yield_now().await;
    drop(all);
    let share = waiting.await.unwrap().unwrap();
    assert_eq!(shares.usage(), (60, 100));
    drop(share);
    assert_eq!(shares.usage(), (0, 60));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_time_out_and_a_client_that_leaves_frees_its_place() {
    let shares = account(100);
    // The mirror still makes this answer, so it cannot be cut.
    let exchange = exchange_of(1);
    let all = [50, 50].map(|half| shares.try_take(&exchange, half).unwrap());
    let began = Instant::now();
    assert!(matches!(
        shares.take(&exchange_of(2), 1).await,
        Err(Exhausted)
    ));
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    let left = tokio::time::timeout(Duration::from_secs(1), shares.take(&exchange_of(2), 1)).await;
    assert!(left.is_err());
    drop(all);
    assert_eq!(shares.usage().0, 0);
    assert!(shares.try_take(&exchange, 90).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_peer_below_its_fair_share_gets_shares_of_the_slowest_answers_of_peers_above() {
    let shares = account(1_000);
    let mut greedy = Vec::new();
    for _ in 0..10 {
        greedy.push(Answering::begin(&shares, 1, 100).await);
    }
    // All clients are fast. The last one is the slowest.
    let began = Instant::now();
    let waiting = {
        let shares = shares.clone();
        tokio::spawn(async move { shares.take(&exchange_of(2), 100).await.map(drop) })
    };
    for _ in 0..20 {
        for (place, answer) in greedy.iter().enumerate() {
            answer.take(100_000 - place);
        }
        pass(Duration::from_millis(50), &mut greedy).await;
    }
    waiting.await.unwrap().unwrap();
    assert!(began.elapsed() <= Duration::from_secs(1));
    let mut cut = Vec::new();
    for answer in &mut greedy {
        cut.push(answer.is_cut().await);
    }
    assert_eq!(cut.iter().filter(|cut| **cut).count(), 1, "{cut:?}");
    assert_eq!(cut.last(), Some(&true));
}

#[tokio::test(start_paused = true)]
async fn with_a_hundred_greedy_peers_a_new_one_gets_its_share_within_a_second() {
    let shares = account(48 << 20);
    let mut greedy = Vec::new();
    for peer in 1..=100 {
        for _ in 0..4 {
            let exchange = exchange_of(peer);
            if let Some(share) = shares.try_take(&exchange, 200_000) {
                greedy.push(Answering::with(exchange, share));
            }
        }
    }
    assert!(shares.try_take(&exchange_of(200), 200_000).is_none());
    pass(Duration::from_secs(5), &mut greedy).await;
    let began = Instant::now();
    let waiting = {
        let shares = shares.clone();
        tokio::spawn(async move { shares.take(&exchange_of(200), 200_000).await.map(drop) })
    };
    while !waiting.is_finished() {
        for answer in &greedy {
            answer.take(1_000);
        }
        pass(Duration::from_millis(50), &mut greedy).await;
    }
    waiting.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_client_must_read_eight_kilobytes_a_second_only_while_others_wait() {
    let shares = Shares::new(SharesSettings {
        capacity: 2,
        connection_max: 2,
        connection_free: 0,
        wait_max: Duration::from_secs(15),
        taking_back: TakingBack::From {
            pace_min: 8 * 1024,
            age_min: Duration::MAX,
        },
    });
    let mut answers = vec![
        Answering::begin(&shares, 1, 1).await,
        Answering::begin(&shares, 1, 1).await,
    ];
    // No request waits.
    for _ in 0..60 {
        answers[1].take(9 * 1024);
        pass(Duration::from_secs(1), &mut answers).await;
    }
    assert!(!answers[0].is_cut().await && !answers[1].is_cut().await);
    let waiting = {
        let shares = shares.clone();
        tokio::spawn(async move { shares.take(&exchange_of(2), 1).await })
    };
    for _ in 0..10 {
        answers[1].take(9 * 1024);
        pass(Duration::from_secs(1), &mut answers).await;
    }
    let share = waiting.await.unwrap().unwrap();
    assert!(answers[0].is_cut().await && !answers[1].is_cut().await);
    drop(share);
}

#[tokio::test(start_paused = true)]
async fn the_peer_that_has_least_is_next() {
    let shares = account(10);
    let (first, second) = (exchange_of(1), exchange_of(2));
    let of_first = shares.try_take(&first, 9).unwrap();
    let of_second = shares.try_take(&second, 1).unwrap();
    let ask = |peer: u8| {
        let shares = shares.clone();
        tokio::spawn(async move {
            let exchange = exchange_of(peer);
            let share = shares.take(&exchange, 1).await.unwrap();
            (exchange, share)
        })
    };
    let again = ask(2);
    tokio::task::yield_now().await;
    let other = ask(3);
    tokio::task::yield_now().await;
    drop(of_second);
    // Both peers have nothing now, and the second one asked first. Then it is the third one's turn.
    let (_exchange, share) = again.await.unwrap();
    tokio::task::yield_now().await;
    assert!(!other.is_finished());
    drop(of_first);
    let third = other.await.unwrap();
    drop((share, third));
}

#[tokio::test(start_paused = true)]
async fn one_share_serves_all_clients_that_read_the_same_bytes() {
    let shares = account(PLENTY);
    let (first, second) = (exchange_of(1), exchange_of(2));
    let share = std::sync::Arc::new(shares.try_take(&first, 1_000).unwrap());
    assert!(share.use_for(&second));
    first.keep(std::sync::Arc::clone(&share));
    second.keep(share);
    drop(first);
    assert_eq!(shares.usage().0, 1_000);
    drop(second);
    assert_eq!(shares.usage().0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_share_can_shrink_and_a_connection_has_an_allowance() {
    let shares = Shares::new(SharesSettings {
        connection_free: 100,
        ..settings(1_000)
    });
    let exchange = exchange_of(1);
    assert!(shares.try_keep(&exchange, 60));
    assert_eq!(shares.usage().0, 0);
    assert!(!shares.try_keep_free(&exchange, 60));
    let mut counted = shares.try_take(&exchange, 60).unwrap();
    assert_eq!(shares.usage().0, 60);
    counted.shrink_to(10);
    assert_eq!(shares.usage().0, 10);
    drop(counted);
    assert!(shares.try_keep(&exchange, 60));
    assert_eq!(shares.usage().0, 60);
    drop(exchange);
    assert_eq!(shares.usage().0, 0);
}

fn settings(capacity: u64) -> SharesSettings {
    SharesSettings {
        capacity,
        connection_max: capacity,
        connection_free: 0,
        wait_max: Duration::from_secs(10),
        taking_back: TakingBack::Never,
    }
}

#[tokio::test(start_paused = true)]
async fn one_connection_has_no_more_than_its_limit() {
    let shares = Shares::new(SharesSettings {
        connection_max: 50,
        ..settings(100)
    });
    let exchange = exchange_of(1);
    let half = shares.try_take(&exchange, 50).unwrap();
    assert!(shares.try_take(&exchange, 1).is_none());
    assert!(shares.try_take(&exchange_of(2), 50).is_some());
    drop(half);
    // The memory of TLS does not prevent one large answer.
    let _tls = shares.try_take(&exchange, 3).unwrap();
    assert!(shares.try_take(&exchange, 1_000).is_some());
}

#[tokio::test(start_paused = true)]
async fn earlier_progress_does_not_excuse_a_greedy_client() {
    let shares = Shares::new(SharesSettings {
        taking_back: TakingBack::From {
            pace_min: 8 * 1024,
            age_min: Duration::MAX,
        },
        ..settings(2)
    });
    let mut greedy = vec![
        Answering::begin(&shares, 1, 1).await,
        Answering::begin(&shares, 1, 1).await,
    ];
    // Measured from the beginning, this average would be enough for hours.
    greedy[0].take(100 << 20);
    greedy[1].take(100 << 20);
    pass(Duration::from_secs(5), &mut greedy).await;
    let began = Instant::now();
    let waiting = {
        let shares = shares.clone();
        tokio::spawn(async move { shares.take(&exchange_of(2), 1).await.map(drop) })
    };
    while !waiting.is_finished() {
        pass(Duration::from_millis(50), &mut greedy).await;
    }
    waiting.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_share_that_a_fair_peer_uses_too_is_not_taken_back_from_a_greedy_peer() {
    let shares = account(100);
    let payer = exchange_of(1);
    let share = std::sync::Arc::new(shares.try_take(&payer, 90).unwrap());
    let innocent = exchange_of(2);
    assert!(share.use_for(&innocent));
    innocent.keep(std::sync::Arc::clone(&share));
    payer.keep(share);
    // Both clients were given more than they read.
    let [one, other] = [&payer, &innocent].map(|exchange| shares.try_take(exchange, 1).unwrap());
    let mut answers = vec![
        Answering::with(payer, one),
        Answering::with(innocent, other),
    ];
    let waiting = {
        let shares = shares.clone();
        tokio::spawn(async move { shares.take(&exchange_of(3), 20).await })
    };
    // Shorter than the time after which any slow answer is cut.
    pass(Duration::from_secs(5), &mut answers).await;
    assert!(!answers[1].is_cut().await && !waiting.is_finished());
    waiting.abort();
}
