//! `healthcheck`: whether the server on this machine is alive.

use std::time::Duration;

use crate::cli::context::Outcome;
use crate::cli::own_server::{OwnAnswer, OwnServerClient};
use crate::cli::terminal::Terminal;

/// How long the server may take. The whole subcommand ends within 5 s.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(4_500);

/// Asks `/livez`. A bad setting is a failure like others: for containers every other exit code than 0 and 1 is reserved.
pub(crate) async fn healthcheck(terminal: &Terminal) -> Outcome {
    match ask().await {
        Ok(()) => Outcome::Done,
        Err(why) => {
            terminal.note(&why);
            Outcome::Incomplete
        }
    }
}

async fn ask() -> Result<(), String> {
    let client = OwnServerClient::from_environment()?;
    let why = match client.get("/livez", ANSWER_TIME_MAX).await {
        Ok(OwnAnswer { status: 200, .. }) => return Ok(()),
        Ok(OwnAnswer { status, .. }) => format!("/livez answers {status}"),
        Err(why) => why,
    };
    Err(format!("the server is not alive: {why}"))
}
