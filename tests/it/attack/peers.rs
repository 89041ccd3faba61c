//! The client of a request is its address, or the address that a trusted proxy forwards. The request event shows it.

use super::*;
use crate::support::{eventually_some, peer, request_from};

/// The client that the request event shows.
#[track_caller]
fn client_of(program: &Program, source: u8, forwarded: &[&str], marker: &str) -> String {
    let headers: Vec<(&str, &str)> = forwarded
        .iter()
        .map(|value| ("X-Forwarded-For", *value))
        .collect();
    // The path identifies the event.
    let path = format!("/api/v1/crates/marker/1.0.{marker}/download");
    request_from(peer(source), program.address, ("GET", &path), &headers, &[]).unwrap();
    eventually_some("the request is logged", || {
        let events = program.request_events();
        let event = events.iter().find(|event| event["path"] == *path)?;
        Some(event["client"].as_str().unwrap_or("no client").to_owned())
    })
}

fn program(settings: Settings<'_>) -> Program {
    // Redirects need no index.
    let missing = [("GIT_REPO_URL", "http://127.0.0.1:1/index.git")];
    Program::start(&[&missing[..], settings].concat())
}

#[test]
fn the_request_event_shows_the_address_of_the_client() {
    let program = program(&[]);
    assert_eq!(client_of(&program, 7, &[], "1"), "127.0.0.7");
    assert_eq!(client_of(&program, 8, &[], "2"), "127.0.0.8");
}

#[test]
fn without_trusted_proxies_a_client_cannot_claim_another_address() {
    let program = program(&[]);
    assert_eq!(client_of(&program, 1, &["192.0.2.1"], "1"), "127.0.0.1");
    assert_eq!(client_of(&program, 7, &["192.0.2.1"], "2"), "127.0.0.7");
}

#[test]
fn behind_trusted_proxies_the_client_is_the_last_address_that_is_no_proxy() {
    let program = program(&[("TRUSTED_PROXIES", "127.0.0.9,10.0.0.0/8,2001:db8:aa::/48")]);
    for (number, (forwarded, client)) in [
        (&["192.0.2.1"][..], "192.0.2.1"),
        // The part that a client sends itself comes first.
        (&["198.51.100.1, 192.0.2.1"], "192.0.2.1"),
        (&["198.51.100.1,192.0.2.1"], "192.0.2.1"),
        (&["198.51.100.1", "192.0.2.1"], "192.0.2.1"),
        // Several proxies.
        (
            &["198.51.100.1, 192.0.2.1, 10.1.2.3, 127.0.0.9"],
            "192.0.2.1",
        ),
        (&["192.0.2.1", "10.1.2.3"], "192.0.2.1"),
        (&["192.0.2.1, 2001:db8:aa::1"], "192.0.2.1"),
        (&["192.0.2.1, 2001:db8:bb::1"], "2001:db8:bb::1"),
        (&["192.0.2.1, 11.0.0.1"], "11.0.0.1"),
        // Without the header, the proxy itself is the client.
        (&[], "127.0.0.9"),
    ]
    .into_iter()
    .enumerate()
    {
        let marker = number.to_string();
        let seen = client_of(&program, 9, forwarded, &marker);
        assert_eq!(seen, client, "{forwarded:?}");
    }
    // The header of a peer that is no trusted proxy is ignored.
    let spoofed = client_of(&program, 7, &["192.0.2.1, 10.1.2.3"], "spoofed");
    assert_eq!(spoofed, "127.0.0.7");
}

#[test]
fn a_trusted_proxy_that_is_not_an_address_stops_the_start() {
    for value in [
        "proxy.example",
        "127.0.0.1/33",
        "10.0.0.0/8,nonsense",
        "::1/129",
    ] {
        let output = Program::run(&[("TRUSTED_PROXIES", value)]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{value}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(
            error.contains("TRUSTED_PROXIES") && error.contains(value),
            "{error}"
        );
    }
}
