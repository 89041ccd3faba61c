//! The mirror with a pause of milliseconds between fetches, which no setting allows. With it, `benches/compare/soak.sh`
//! runs weeks of refreshes in minutes, and `kill_loop.sh` kills the mirror at every moment of its life. All other
//! settings come from the environment.
//!
//! Arguments: the pause; optionally the number of packs at which they are rolled up, and the bytes of old history at
//! which the clone is replaced. Without any, as `cargo bench` starts it, it does nothing.

use std::error::Error;
use std::time::Duration;

use crates_io_mirror::{App, Config, return_large_blocks, start_logging};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u32>().ok());
    let Some(pause) = numbers.next() else {
        return Ok(());
    };
    let mut config = Config::from_environment()?;
    config.refresh_interval = Some(Duration::from_millis(pause.into()));
    if let Some(packs) = numbers.next() {
        config.upkeep.packs_max = usize::try_from(packs)?;
    }
    if let Some(bytes) = numbers.next() {
        config.upkeep.slack_bytes = bytes.into();
    }
    return_large_blocks();
    let logging = start_logging(&config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(config));
    runtime.shutdown_background();
    drop(logging);
    result
}

async fn run(config: Config) -> Result<(), Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let app = App::bind(config).await?;
    let stop = async move {
        terminate.recv().await;
    };
    Ok(app.run(stop).await?)
}
