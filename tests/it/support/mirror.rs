//! The mirror inside the process of the test.

use std::ops::Deref;
use std::time::Duration;

use crates_io_mirror::{App, Clock, Config, RunError, StartError, runtime};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Client;
use super::accept_loop::AcceptLoop;

/// The time-out for an upstream. libgit2 has one value for the whole process, and the first mirror sets it.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Shorter than the variable allows, so that tests do not wait long.
const REFRESH_INTERVAL: Duration = Duration::from_millis(200);

/// A stop that takes longer never ends.
const STOP_WAIT_MAX: Duration = Duration::from_secs(60);

/// How many ports are tried. More collisions with other processes are no coincidence.
const PORTS_MAX: usize = 50;

/// A running mirror. Dropping it stops it, and checks its end.
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

    /// Starts a mirror with another clock.
    pub(crate) fn start_at(settings: &[(&str, &str)], clock: Clock) -> Self {
        Self::run(config(settings), clock).unwrap()
    }

    /// Starts a mirror with settings that have no variables.
    pub(crate) fn start_with(settings: &[(&str, &str)], change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(settings);
        change(&mut config);
        Self::run(config, Clock::system()).unwrap()
    }

    /// Starts a mirror with another clock, and with settings that have no variables.
    pub(crate) fn start_with_clock(
        settings: &[(&str, &str)],
        clock: Clock,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = config(settings);
        change(&mut config);
        Self::run(config, clock).unwrap()
    }

    /// Starts a mirror that knows its own URL, on a free port.
    pub(crate) fn start_public(settings: &[(&str, &str)]) -> Self {
        for _ in 0..PORTS_MAX {
            // The mirror must know its port before it listens, so another process can take it in between.
            let address = AcceptLoop::listen().local_addr().unwrap();
            let (port, url) = (address.port().to_string(), format!("http://{address}"));
            let own = [("PORT", port.as_str()), ("PUBLIC_URL", url.as_str())];
            match Self::run(config(&[settings, &own].concat()), Clock::system()) {
                Ok(mirror) => return mirror,
                Err(StartError::Bind { source, .. }) => println!("{address}: {source}"),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("there was no free port");
    }

    fn run(config: Config, clock: Clock) -> Result<Self, StartError> {
        let runtime = runtime().unwrap();
        let app = runtime.block_on(App::bind_with_clock(config, clock))?;
        let client = Client::new(app.local_addr());
        let (stop, stopped) = oneshot::channel();
        let running = runtime.spawn(app.run(async move { drop(stopped.await) }));
        Ok(Self {
            client,
            stop: Some(stop),
            running: Some(running),
            runtime: Some(runtime),
        })
    }

    /// Stops the mirror.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

/// Settings in the form that [`Mirror`] and the program take.
pub(crate) fn borrowed<'s>(settings: &'s [(&'static str, String)]) -> Vec<(&'s str, &'s str)> {
    let pairs = settings.iter();
    pairs.map(|(name, value)| (*name, value.as_str())).collect()
}

fn config(settings: &[(&str, &str)]) -> Config {
    // Settings of the test replace the defaults.
    let is_set = |name: &str| settings.iter().any(|(other, _)| *other == name);
    let fixed = [("BIND_ADDRESS", "127.0.0.1"), ("PORT", "0")];
    let fixed = fixed.iter().filter(|(name, _)| !is_set(name));
    let pairs = fixed
        .chain(settings)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut config = Config::from_pairs(pairs).unwrap();
    if !is_set("REFRESH_INTERVAL_SECS") {
        config.refresh_interval = Some(REFRESH_INTERVAL);
    }
    config.connect_timeout = SILENCE_MAX;
    config.silence_timeout = SILENCE_MAX;
    config
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
        // A fetch from an unresponsive upstream may still wait.
        runtime.shutdown_background();
        if !std::thread::panicking() {
            ended
                .expect("the mirror stops")
                .expect("the mirror does not panic")
                .expect("the mirror runs to its end");
        }
    }
}
