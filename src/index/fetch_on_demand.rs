//! Fetches on demand: a reader asks for a fetch now, because a version that it misses may have just been published.
//!
//! Many readers share one fetch, and a limit protects the upstream. The follower decides when fetches on demand are
//! allowed ([`FetchesOnDemand::allow`], [`FetchesOnDemand::forbid`]). While they are forbidden, readers return at once.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// The number of fetches on demand that may follow each other immediately.
const BURST: u32 = 3;

/// The time after which one more is allowed.
const ONE_MORE_AFTER: Duration = Duration::from_secs(10);

/// The longest wait of a reader.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// The result of a request for a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshOutcome {
    /// A fetch that began after the request has succeeded, and its view is published.
    Fetched,
    /// Such a fetch has failed.
    Failed,
    /// No fetch will begin for this request: the limit is reached, the upstream is unreachable, or the settings forbid
    /// it.
    NotNow,
    /// The fetch takes longer than a reader may wait.
    TooLate,
}

/// A fetch that readers wait for. It has not begun, or it is running. Dropping it ends their wait.
#[derive(Debug)]
pub(crate) struct RequestedFetch(watch::Sender<Option<RefreshOutcome>>);

/// The state that readers and the follower share. Fetches are forbidden at first.
#[derive(Debug, Default)]
pub(crate) struct FetchesOnDemand {
    state: Mutex<State>,
    requested: Notify,
}

#[derive(Debug, Default)]
struct State {
    is_allowed: bool,
    /// The next fetch, which has not begun. All readers that ask before it begins share it.
    next: Option<RequestedFetch>,
    tokens: Tokens,
}

impl RequestedFetch {
    /// Tells the waiting readers the result.
    pub(crate) fn end(self, outcome: RefreshOutcome) {
        self.0.send_replace(Some(outcome));
    }
}

impl FetchesOnDemand {
    /// Waits for the end of a fetch that begins after this call.
    pub(crate) async fn ask(&self) -> RefreshOutcome {
        let Some(mut end) = self.join_next() else {
            return RefreshOutcome::NotNow;
        };
        let ended = tokio::time::timeout(WAIT_MAX, end.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(outcome)) => outcome.unwrap_or(RefreshOutcome::NotNow),
            Ok(Err(_dropped)) => RefreshOutcome::NotNow,
            Err(_elapsed) => RefreshOutcome::TooLate,
        }
    }

    /// Waits for the next fetch, and requests one if no reader has and the limit allows it.
    fn join_next(&self) -> Option<watch::Receiver<Option<RefreshOutcome>>> {
        let mut state = self.state.lock();
        if let Some(next) = &state.next {
            return Some(next.0.subscribe());
        }
        if !state.is_allowed || !state.tokens.take(Instant::now()) {
            return None;
        }
        let (sender, receiver) = watch::channel(None);
        state.next = Some(RequestedFetch(sender));
        drop(state);
        self.requested.notify_one();
        Some(receiver)
    }

    /// Waits until a reader requests a fetch. Only one task may wait.
    pub(super) async fn requested(&self) {
        // A loop, because a regular fetch may have served the request of this notification already.
        while self.state.lock().next.is_none() {
            self.requested.notified().await;
        }
    }

    /// Must be called when a fetch begins. Readers that ask after this wait for the next fetch.
    pub(crate) fn begin(&self) -> Option<RequestedFetch> {
        self.state.lock().next.take()
    }

    /// Allows fetches on demand.
    pub(crate) fn allow(&self) {
        self.state.lock().is_allowed = true;
    }

    /// Forbids fetches on demand, and ends the wait for a fetch that has not begun.
    pub(super) fn forbid(&self) {
        let mut state = self.state.lock();
        state.is_allowed = false;
        state.next = None;
    }
}

/// A token bucket. Each fetch takes a token, and the bucket starts full.
#[derive(Debug)]
struct Tokens {
    left: u32,
    /// The start of the interval after which the next token is added.
    since: Instant,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            left: BURST,
            since: Instant::now(),
        }
    }
}

impl Tokens {
    fn take(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.duration_since(self.since) >= ONE_MORE_AFTER {
            self.left += 1;
            self.since += ONE_MORE_AFTER;
        }
        if self.left == BURST {
            // Time with a full bucket adds no tokens later.
            self.since = now;
        }
        let had_one = self.left > 0;
        self.left = self.left.saturating_sub(1);
        had_one
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinHandle;

    use super::*;

    fn allowed() -> Arc<FetchesOnDemand> {
        let fetches = Arc::new(FetchesOnDemand::default());
        fetches.allow();
        fetches
    }

    /// Starts a reader, and returns when it waits.
    async fn ask(fetches: &Arc<FetchesOnDemand>) -> JoinHandle<RefreshOutcome> {
        let fetches = Arc::clone(fetches);
        let reader = tokio::spawn(async move { fetches.ask().await });
        // Runs the reader until it waits.
        tokio::task::yield_now().await;
        reader
    }

    #[tokio::test(start_paused = true)]
    async fn many_readers_share_the_next_fetch_and_one_token() {
        let fetches = allowed();
        let mut readers = Vec::new();
        for _ in 0..50 {
            readers.push(ask(&fetches).await);
        }
        fetches.requested().await;
        fetches.begin().unwrap().end(RefreshOutcome::Fetched);
        assert!(fetches.begin().is_none(), "one fetch served all readers");
        for reader in readers {
            assert_eq!(reader.await.unwrap(), RefreshOutcome::Fetched);
        }
        assert_eq!(fetches.state.lock().tokens.left, BURST - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_asks_during_a_fetch_waits_for_the_next_one() {
        let fetches = allowed();
        let early = ask(&fetches).await;
        let first = fetches.begin().unwrap();
        let late = ask(&fetches).await;
        first.end(RefreshOutcome::Fetched);
        assert_eq!(early.await.unwrap(), RefreshOutcome::Fetched);
        assert!(!late.is_finished());
        fetches.requested().await;
        fetches.begin().unwrap().end(RefreshOutcome::Failed);
        assert_eq!(late.await.unwrap(), RefreshOutcome::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn three_are_allowed_at_once_and_then_one_every_ten_seconds() {
        let fetches = allowed();
        let fetch = async || {
            let reader = ask(&fetches).await;
            if let Some(fetch) = fetches.begin() {
                fetch.end(RefreshOutcome::Fetched);
            }
            reader.await.unwrap()
        };
        for _ in 0..BURST {
            assert_eq!(fetch().await, RefreshOutcome::Fetched);
        }
        // The rest of a pause counts for the next token.
        for (seconds, outcome) in [
            (9, RefreshOutcome::NotNow),
            (6, RefreshOutcome::Fetched),
            (4, RefreshOutcome::NotNow),
            (1, RefreshOutcome::Fetched),
            (0, RefreshOutcome::NotNow),
        ] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(fetch().await, outcome);
        }
    }

    #[test]
    fn after_a_day_without_fetches_the_burst_is_still_three() {
        let start = Instant::now();
        let mut tokens = Tokens {
            left: BURST,
            since: start,
        };
        assert!(tokens.take(start));
        let later = start + Duration::from_secs(86_400);
        assert!(tokens.take(later) && tokens.take(later) && tokens.take(later));
        assert!(!tokens.take(later) && !tokens.take(later + Duration::from_secs(9)));
        assert!(tokens.take(later + Duration::from_secs(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn no_reader_waits_while_fetches_are_forbidden() {
        let fetches = Arc::new(FetchesOnDemand::default());
        assert_eq!(fetches.ask().await, RefreshOutcome::NotNow);
        fetches.allow();
        let (waits, under_way) = (ask(&fetches).await, fetches.begin());
        let next = ask(&fetches).await;
        fetches.forbid();
        assert_eq!(next.await.unwrap(), RefreshOutcome::NotNow);
        assert!(!waits.is_finished(), "its fetch has begun and will end");
        // As if the follower had panicked during the fetch.
        drop(under_way);
        assert_eq!(waits.await.unwrap(), RefreshOutcome::NotNow);
        assert_eq!(fetches.ask().await, RefreshOutcome::NotNow);
        assert_eq!(
            fetches.state.lock().tokens.left,
            BURST - 2,
            "a refusal takes no token"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn no_reader_waits_longer_than_the_limit() {
        let fetches = allowed();
        let began = Instant::now();
        assert_eq!(fetches.ask().await, RefreshOutcome::TooLate);
        assert_eq!(began.elapsed(), WAIT_MAX);
        assert!(fetches.begin().is_some(), "the fetch still happens");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_a_regular_fetch_has_served_does_not_wake_the_follower() {
        let fetches = allowed();
        let reader = ask(&fetches).await;
        fetches.begin().unwrap().end(RefreshOutcome::Fetched);
        assert_eq!(reader.await.unwrap(), RefreshOutcome::Fetched);
        let woken = tokio::time::timeout(Duration::from_secs(1), fetches.requested()).await;
        assert!(woken.is_err());
    }
}
