//! A fetch at once, for a reader that found something missing which may have been published a moment ago.
//!
//! Many readers share one fetch, and the upstream is asked for more of them than the settings say only now and then. The
//! owner of the clone says when there may be any ([`FetchesOnDemand::allow`], [`FetchesOnDemand::forbid`]); while it may not,
//! and as soon as it ends, nobody waits.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// So many fetches may be forced one behind the other.
const BURST: u32 = 3;

/// After so long there may be one more.
const ONE_MORE_AFTER: Duration = Duration::from_secs(10);

/// The longest that a reader waits.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// What became of the wish for a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshOutcome {
    /// A fetch that began after the wish has succeeded, and what it brought is published.
    Fetched,
    /// Such a fetch has failed.
    Failed,
    /// None will begin for this wish: there were many lately, the upstream is out of reach, or the settings forbid it.
    NotNow,
    /// It takes longer than a reader can wait.
    TooLate,
}

/// A fetch that somebody waits for, not yet begun or under way. Dropping it tells those who wait that it will not end.
#[derive(Debug)]
pub(crate) struct RequestedFetch(watch::Sender<Option<RefreshOutcome>>);

/// What readers and the owner of the clone share.
#[derive(Debug)]
pub(crate) struct FetchesOnDemand {
    state: Mutex<State>,
    requested: Notify,
}

#[derive(Debug)]
struct State {
    is_allowed: bool,
    /// The one that has not begun yet. All who come before it begins share it.
    next: Option<RequestedFetch>,
    tokens: Tokens,
}

impl RequestedFetch {
    /// Tells those who wait how it ended.
    pub(crate) fn end(self, outcome: RefreshOutcome) {
        self.0.send_replace(Some(outcome));
    }
}

impl FetchesOnDemand {
    /// None is allowed yet.
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                is_allowed: false,
                next: None,
                tokens: Tokens::full(Instant::now()),
            }),
            requested: Notify::new(),
        }
    }

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

    /// Joins those who wait for the next fetch, or is the first of them if there may be one.
    fn join_next(&self) -> Option<watch::Receiver<Option<RefreshOutcome>>> {
        let mut state = self.lock();
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

    /// Waits until somebody wants a fetch. For one waiter.
    pub(crate) async fn requested(&self) {
        // What was notified of may have been taken since, by a fetch that came anyway.
        while self.lock().next.is_none() {
            self.requested.notified().await;
        }
    }

    /// To be called when a fetch begins: who asks from now on waits for the one after it.
    pub(crate) fn begin(&self) -> Option<RequestedFetch> {
        self.lock().next.take()
    }

    /// From now on a fetch may be forced.
    pub(crate) fn allow(&self) {
        self.lock().is_allowed = true;
    }

    /// From now on none may be forced, and who waits for one that has not begun is told so.
    pub(crate) fn forbid(&self) {
        let mut state = self.lock();
        state.is_allowed = false;
        state.next = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain data, whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bucket of tokens: full at first, one for each fetch.
#[derive(Debug)]
struct Tokens {
    left: u32,
    /// Since when the next one has been growing.
    since: Instant,
}

impl Tokens {
    fn full(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.duration_since(self.since) >= ONE_MORE_AFTER {
            self.left += 1;
            self.since += ONE_MORE_AFTER;
        }
        if self.left == BURST {
            // A full bucket grows no more.
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
        let fetches = Arc::new(FetchesOnDemand::new());
        fetches.allow();
        fetches
    }

    /// An asker that waits already.
    async fn ask(fetches: &Arc<FetchesOnDemand>) -> JoinHandle<RefreshOutcome> {
        let fetches = Arc::clone(fetches);
        let asker = tokio::spawn(async move { fetches.ask().await });
        // It runs up to where it waits.
        tokio::task::yield_now().await;
        asker
    }

    #[tokio::test(start_paused = true)]
    async fn many_askers_share_the_next_fetch_and_one_token() {
        let fetches = allowed();
        let mut askers = Vec::new();
        for _ in 0..50 {
            askers.push(ask(&fetches).await);
        }
        fetches.requested().await;
        fetches.begin().unwrap().end(RefreshOutcome::Fetched);
        assert!(fetches.begin().is_none(), "all were served by one");
        for asker in askers {
            assert_eq!(asker.await.unwrap(), RefreshOutcome::Fetched);
        }
        assert_eq!(fetches.lock().tokens.left, BURST - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_during_a_fetch_waits_for_the_one_after_it() {
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
            let asker = ask(&fetches).await;
            if let Some(fetch) = fetches.begin() {
                fetch.end(RefreshOutcome::Fetched);
            }
            asker.await.unwrap()
        };
        for _ in 0..BURST {
            assert_eq!(fetch().await, RefreshOutcome::Fetched);
        }
        // What is left over of a pause counts for the next one.
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
    fn a_quiet_day_allows_no_more_than_three() {
        let start = Instant::now();
        let mut tokens = Tokens::full(start);
        assert!(tokens.take(start));
        let later = start + Duration::from_secs(86_400);
        assert!(tokens.take(later) && tokens.take(later) && tokens.take(later));
        assert!(!tokens.take(later) && !tokens.take(later + Duration::from_secs(9)));
        assert!(tokens.take(later + Duration::from_secs(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_before_it_is_allowed_nor_after_it_is_forbidden() {
        let fetches = Arc::new(FetchesOnDemand::new());
        assert_eq!(fetches.ask().await, RefreshOutcome::NotNow);
        fetches.allow();
        let (waits, under_way) = (ask(&fetches).await, fetches.begin());
        let next = ask(&fetches).await;
        fetches.forbid();
        assert_eq!(next.await.unwrap(), RefreshOutcome::NotNow);
        assert!(!waits.is_finished(), "its fetch has begun and will end");
        // As if the owner of the clone had ended in the middle.
        drop(under_way);
        assert_eq!(waits.await.unwrap(), RefreshOutcome::NotNow);
        assert_eq!(fetches.ask().await, RefreshOutcome::NotNow);
        assert_eq!(
            fetches.lock().tokens.left,
            BURST - 2,
            "a refusal costs nothing"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn no_reader_waits_longer_than_it_can() {
        let fetches = allowed();
        let began = Instant::now();
        assert_eq!(fetches.ask().await, RefreshOutcome::TooLate);
        assert_eq!(began.elapsed(), WAIT_MAX);
        assert!(fetches.begin().is_some(), "the fetch is made all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_that_an_ordinary_fetch_has_fulfilled_wakes_nobody() {
        let fetches = allowed();
        let asker = ask(&fetches).await;
        fetches.begin().unwrap().end(RefreshOutcome::Fetched);
        assert_eq!(asker.await.unwrap(), RefreshOutcome::Fetched);
        let woken = tokio::time::timeout(Duration::from_secs(1), fetches.requested()).await;
        assert!(woken.is_err());
    }
}
