//! Which redirects of an upstream are followed: an upstream on the internet cannot redirect into a private network.
//!
//! Two loopback addresses stand for the internet and for a private network. The resolver of the tests knows the names.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use crates_io_mirror::Resolver;

use super::*;

/// The address of the upstream.
const INTERNET: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);

/// The address of a server that must get no request.
const PRIVATE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn resolver() -> Resolver {
    let look_up = |name: &str| -> Vec<IpAddr> {
        match name {
            "public.example" | "other.example" => vec![INTERNET.into()],
            "private.example" => vec![PRIVATE.into()],
            "both.example" => vec![PRIVATE.into(), INTERNET.into()],
            _ => Vec::new(),
        }
    };
    Resolver::custom(look_up, |address| address == IpAddr::from(PRIVATE))
}

/// A mirror whose upstream has this host.
fn scene(host: &str) -> (Scene, u16) {
    let origin = Origin::of(3);
    let port = origin.upstream.url("/");
    let port = port.rsplit(':').next().unwrap().trim_end_matches('/');
    let port: u16 = port.parse().unwrap();
    let template = format!("http://{host}:{port}/crates/{{crate}}/{{crate}}-{{version}}.crate");
    let scene = Scene::changed(origin, &[("DOWNLOAD_URL", &template)], |config| {
        config.resolver = resolver();
    });
    (scene, port)
}

#[test]
fn a_redirect_of_a_public_upstream_into_a_private_network_is_refused() {
    let neighbour = TcpListener::bind((PRIVATE, 0)).unwrap();
    neighbour.set_nonblocking(true).unwrap();
    let port = neighbour.local_addr().unwrap().port();
    let (scene, _) = scene("public.example");
    for host in [
        "private.example",
        "127.0.0.2",
        "2130706434",
        "0x7f.2",
        "[::ffff:127.0.0.2]",
        "PRIVATE.example.",
    ] {
        let target = format!("http://{host}:{port}/latest/meta-data");
        scene
            .origin
            .upstream
            .fail(UpstreamFault::RedirectsTo(target));
        assert_fails(&scene.download(0), 502);
        scene.origin.upstream.heal();
    }
    let asked = neighbour.accept();
    assert!(
        asked.is_err(),
        "the private server got a request: {asked:?}"
    );
    assert_serves(&scene.mirror, &scene.origin.files[0]);
}

#[test]
fn a_redirect_of_a_public_upstream_to_another_public_host_is_followed() {
    let (scene, port) = scene("public.example");
    for (number, host) in ["other.example", "127.0.0.1", "both.example"]
        .iter()
        .enumerate()
    {
        let file = &scene.origin.files[number];
        let kept = format!("/kept/{number}");
        scene.origin.upstream.hold(&kept, file.content.clone());
        let to_kept = UpstreamFault::RedirectsTo(format!("http://{host}:{port}{kept}"));
        scene.origin.upstream.fail_path(&file.path(), to_kept);
        assert_serves(&scene.mirror, file);
    }
}

#[test]
fn an_upstream_in_a_private_network_can_redirect_within_it() {
    // Here the upstream has a private address.
    let origin = Origin::of(2);
    let template = origin
        .upstream
        .template()
        .replace("127.0.0.1", "inside.example");
    let target = origin.upstream.url("/kept");
    origin
        .upstream
        .hold("/kept", origin.files[0].content.clone());
    let path = origin.files[0].path();
    origin
        .upstream
        .fail_path(&path, UpstreamFault::RedirectsTo(target));
    let scene = Scene::changed(origin, &[("DOWNLOAD_URL", &template)], |config| {
        config.resolver = Resolver::custom(|_name| vec![INTERNET.into()], |_any| true);
    });
    for file in &scene.origin.files {
        assert_serves(&scene.mirror, file);
    }
}
