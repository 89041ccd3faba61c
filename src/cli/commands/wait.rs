//! `wait`: waits until the server on this machine is ready.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::args::WaitArguments;
use crate::cli::context::Outcome;
use crate::cli::own_server::{OwnAnswer, OwnServerClient};
use crate::cli::terminal::Terminal;

/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// How long one answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// How often a line says what it waits for, at most. The first one comes at once.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The part of `/readyz` that says why the server is not ready.
#[derive(Deserialize)]
struct Readiness {
    reason: Option<String>,
}

/// Asks `/readyz` until it answers 200, the time is up, or a signal comes.
pub(crate) async fn wait(
    arguments: &WaitArguments,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Outcome {
    let client = match OwnServerClient::from_environment() {
        Ok(client) => client,
        Err(why) => {
            terminal.note(&why);
            return Outcome::Unusable;
        }
    };
    let began = Instant::now();
    let time_max = Duration::from_secs(arguments.timeout.into());
    let mut line_due = began;
    loop {
        let left = time_max.saturating_sub(began.elapsed());
        // With no time left it still asks once, briefly.
        let answer_time_max = left.clamp(ASK_EVERY, ANSWER_TIME_MAX);
        let answer = tokio::select! {
            () = stop.cancelled() => return Outcome::Incomplete,
            answer = client.get("/readyz", answer_time_max) => answer,
        };
        let Some(why) = reason(answer) else {
            terminal.note(&format!("ready after {} s", began.elapsed().as_secs()));
            return Outcome::Done;
        };
        let now = Instant::now();
        if now.duration_since(began) + ASK_EVERY > time_max {
            terminal.note(&format!("not ready after {} s: {why}", arguments.timeout));
            return Outcome::Incomplete;
        }
        if now >= line_due {
            terminal.note(&format!("waiting: {why}"));
            line_due = now + LINE_EVERY;
        }
        tokio::select! {
            () = stop.cancelled() => return Outcome::Incomplete,
            () = tokio::time::sleep(ASK_EVERY) => {}
        }
    }
}

/// Why the server is not ready. `None` if it is.
fn reason(answer: Result<OwnAnswer, String>) -> Option<String> {
    let (status, body) = match answer {
        Ok(OwnAnswer { status: 200, .. }) => return None,
        Ok(OwnAnswer { status, body }) => (status, body),
        Err(why) => return Some(why),
    };
    let readiness: Option<Readiness> = serde_json::from_slice(&body).ok();
    let reason = readiness.and_then(|readiness| readiness.reason);
    Some(reason.unwrap_or_else(|| format!("/readyz answers {status}")))
}
