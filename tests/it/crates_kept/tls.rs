//! Upstreams with TLS.

use super::*;
use crate::support::{Authority, CrateUpstream, Program};

/// One crate, and an upstream whose certificate is from a private authority.
fn origin() -> (Origin, Authority) {
    let authority = Authority::new();
    let files = vec![CrateFile::numbered(0)];
    let upstream = CrateUpstream::start_tls(&files, &authority);
    (Origin::at(upstream, files), authority)
}

/// The program, with an authority that it trusts.
fn trusting(origin: &Origin, authority: &Authority, data: &TempDir) -> Program {
    let trusted = authority.file();
    let mut settings = vec![
        ("SSL_CERT_FILE", trusted.to_str().unwrap()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ];
    let own = origin.settings();
    settings.extend(own.iter().map(|(name, value)| (*name, value.as_str())));
    let program = Program::start(&settings);
    program.wait_until_ready();
    program
}

#[test]
fn a_certificate_that_is_not_trusted_gives_502() {
    let (origin, _authority) = origin();
    let scene = Scene::with(origin, &[]);
    assert_fails(&scene.download(0), 502);
    assert!(
        scene.origin.upstream.seen().is_empty(),
        "the upstream got a request"
    );
    assert!(scene.held().checksums.is_empty());
}

#[test]
fn a_certificate_of_an_authority_in_ssl_cert_file_is_trusted() {
    let (origin, authority) = origin();
    let data = TempDir::new().unwrap();
    let program = trusting(&origin, &authority, &data);
    assert_serves(&program, &origin.files[0]);
}

#[test]
fn a_redirect_away_from_tls_is_not_followed() {
    let (origin, authority) = origin();
    let plain = CrateUpstream::start(&origin.files);
    let target = plain.url(&origin.files[0].path());
    origin.upstream.fail(UpstreamFault::RedirectsTo(target));
    let data = TempDir::new().unwrap();
    let program = trusting(&origin, &authority, &data);
    assert_fails(&program.get(&origin.files[0].download_path()), 502);
    assert!(plain.seen().is_empty(), "{:?}", plain.seen());
    origin.upstream.heal();
    assert_serves(&program, &origin.files[0]);
}
