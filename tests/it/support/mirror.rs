//! The mirror inside the process of the test.

use std::ops::Deref;
use std::time::Duration;

use crates_io_mirror::{App, Clock, Config, RunError};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Client;

/// How long an upstream may be silent. libgit2 knows one value for the whole process: the first mirror sets it.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(5);

/// A stop takes longer than this only if it never ends.
const STOP_WAIT_MAX: Duration = Duration::from_secs(60);

/// A running mirror; stopped, and its end checked, when it is dropped.
pub(crate) struct Mirror {
    client: Client,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<Result<(), RunError>>>,
    runtime: Option<Runtime>,
}

impl Mirror {
    /// Starts a mirror with these settings, on a free port.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_at(settings, Clock::system())
    }

    /// Starts a mirror with another time of day.
    pub(crate) fn start_at(settings: &[(&str, &str)], clock: Clock) -> Self {
        Self::start_changed(settings, clock, |_config| ())
    }

    /// Starts a mirror with settings that have no variables.
    pub(crate) fn start_with(settings: &[(&str, &str)], change: impl FnOnce(&mut Config)) -> Self {
        Self::start_changed(settings, Clock::system(), change)
    }

    fn start_changed(
        settings: &[(&str, &str)],
        clock: Clock,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let fixed = [
            ("BIND_ADDRESS", "127.0.0.1"),
            ("PORT", "0"),
            ("REFRESH_INTERVAL_SECS", "1"),
        ];
        // What the test sets comes instead.
        let fixed = fixed
            .iter()
            .filter(|(name, _)| settings.iter().all(|(other, _)| other != name));
        let pairs = fixed
            .chain(settings)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut config = Config::from_pairs(pairs).unwrap();
        config.connect_timeout = SILENCE_MAX;
        config.silence_timeout = SILENCE_MAX;
        change(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let app = runtime
            .block_on(App::bind_with_clock(config, clock))
            .unwrap();
        let client = Client::new(app.local_addr());
        let (stop, stopped) = oneshot::channel();
        let running = runtime.spawn(app.run(async move { drop(stopped.await) }));
        Self {
            client,
            stop: Some(stop),
            running: Some(running),
            runtime: Some(runtime),
        }
    }

    /// Stops it.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Deref for Mirror {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        drop(self.stop.take());
        let (Some(running), Some(runtime)) = (self.running.take(), self.runtime.take()) else {
            return;
        };
        let ended = runtime.block_on(async { tokio::time::timeout(STOP_WAIT_MAX, running).await });
        // A fetch from a silent upstream may still wait.
        runtime.shutdown_background();
        if !std::thread::panicking() {
            ended
                .expect("the mirror stops")
                .expect("the mirror does not panic")
                .expect("the mirror runs to its end");
        }
    }
}
