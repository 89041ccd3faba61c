//! A path in `PUBLIC_URL`: the mirror works whether or not the proxy in front removes it from requests.

use tempfile::TempDir;

use crate::support::{
    CrateFile, CrateFiles, GitIndex, GitServer, Mirror, PrefixProxy, Project, succeeds,
};

#[test]
fn everything_works_below_a_path_whether_or_not_the_proxy_removes_it() {
    let leaf = CrateFile::pack("leaf", "1.0.0", &[]);
    let line = leaf.index_line();
    let files = CrateFiles::start(&[leaf]);
    let index = GitIndex::with_fixtures();
    index.commit().crate_file("leaf", &line).send();
    let server = GitServer::start(&index);
    let (data, proxy) = (TempDir::new().unwrap(), PrefixProxy::start());
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", &server.url()),
        ("DATA_DIR", data.path().to_str().unwrap()),
        (
            "DOWNLOAD_URL",
            &format!(
                "http://{}/crates/{{crate}}/{{crate}}-{{version}}.crate",
                files.address()
            ),
        ),
        ("DOWNLOAD_MODE", "cache"),
        ("PUBLIC_URL", &proxy.url()),
    ]);
    proxy.leads_to(mirror.address);
    mirror.wait_until_ready();
    for strips in [false, true] {
        proxy.strip(strips);
        for index in ["sparse+URL/index/", "URL/git/index"] {
            let index = index.replace("URL", &proxy.url());
            let project = Project::with(&index, &[], "leaf = \"1\"\n", "");
            succeeds(&project.cargo(&["fetch"]));
            assert!(
                project.lock_file().contains("name = \"leaf\""),
                "{index} {strips}"
            );
        }
    }

    let config = mirror.get("/mirror/index/config.json").json();
    assert_eq!(config["dl"], format!("{}/api/v1/crates", proxy.url()));
    for path in [
        "/",
        "/livez",
        "/readyz",
        "/metrics",
        "/changes",
        "/index/le/af/leaf",
        "/index/config.json",
        "/at/2026-01-01/index/le/af/leaf",
        "/at/2026-01-01/index/config.json",
        "/api/v1/crates/leaf",
        "/api/v1/crates/leaf/1.0.0/download",
        "/crates/leaf/leaf-1.0.0.crate",
        "/git/index/info/refs?service=git-upload-pack",
    ] {
        assert_eq!(mirror.get(path).status, 200, "{path}");
        assert_eq!(
            mirror.get(&format!("/mirror{path}")).status,
            200,
            "/mirror{path}"
        );
        assert_eq!(
            mirror
                .request("HEAD", &format!("/mirror{path}"), &[])
                .status,
            200,
            "HEAD {path}"
        );
        assert_eq!(
            mirror.get(&format!("/mirrorfoo{path}")).status,
            404,
            "/mirrorfoo{path}"
        );
    }
    for (path, status) in [
        ("/mirror", 200),
        ("/mirror?x", 200),
        ("//mirror//index/./le/af/leaf", 200),
        ("/x/../mirror/api/v1/crates/leaf", 200),
        ("/mirror/../index/le/af/leaf", 200),
        ("/mirror/index/le/%61f/leaf", 200),
        ("/mirror/mirror/livez", 404),
        ("/mirror%2flivez", 404),
        ("/mirror/index%2fle/af/leaf", 404),
        ("/mirror/%2e%2e/livez", 404),
        ("/MIRROR/livez", 404),
        ("/mirror/nothing", 404),
    ] {
        assert_eq!(mirror.get(path).status, status, "{path}");
    }
    let write = mirror.request("DELETE", "/mirror/api/v1/crates/leaf/1.0.0/yank", &[]);
    assert_eq!(write.status, 403);
    assert!(write.detail().contains("read-only mirror"));
}
