//! `healthcheck`: whether the server on this machine is alive.

use std::time::Duration;

use crate::cli::context::Outcome;
use crate::cli::own_server::OwnServerClient;
use crate::cli::terminal::Terminal;
use crate::config::OwnServer;

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
    let server = OwnServer::from_environment().map_err(|error| error.to_string())?;
    let client = OwnServerClient::new(server)?;
    let answer = client.get("/livez", ANSWER_TIME_MAX).await;
    match answer
        .map_err(|why| format!("the server is not alive: {why}"))?
        .status
    {
        200 => Ok(()),
        status => Err(format!("the server is not alive: /livez answers {status}")),
    }
}
