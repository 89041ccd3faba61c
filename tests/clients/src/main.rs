//! Reads a mirror with clients of others: the types of `crates_io_api`, the sparse index of `crates-index` and that of
//! `tame-index`. The index of the mirror is `tests/fixtures/index`.
//!
//! `crates_io_api` sends requests only to crates.io, so this uses its types without its client.

use crates_index::SparseIndex;
use crates_io_api::{
    AuthorsMeta, CrateDownloads, CrateResponse, CratesPage, Dependencies, Owners, Summary, Version,
    VersionDownloads,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tame_index::IndexKrate;
use tame_index::index::{FileLock, IndexLocation, IndexPath, IndexUrl};
use ureq::http::{Request, Response, Version as HttpVersion};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// One version. `crates_io_api` does not export the type of this answer.
#[derive(Deserialize)]
struct VersionResponse {
    version: Version,
}

/// The versions in an answer about reverse dependencies, for the same reason.
#[derive(Deserialize)]
struct ReverseDependencies {
    dependencies: Vec<crates_io_api::Dependency>,
    versions: Vec<Version>,
    meta: crates_io_api::Meta,
}

/// A list of versions, for the same reason.
#[derive(Deserialize)]
struct Versions {
    versions: Vec<Version>,
}

/// The authors of a version, for the same reason.
#[derive(Deserialize)]
struct Authors {
    meta: AuthorsMeta,
}

/// The downloads of a version, for the same reason.
#[derive(Deserialize)]
struct Downloads {
    version_downloads: Vec<VersionDownloads>,
}

fn main() -> Result<()> {
    let mirror = std::env::args()
        .nth(1)
        .ok_or("the URL of a mirror is missing")?;
    answers_fit_the_types_of_crates_io_api(&mirror)?;
    crates_index_reads_the_sparse_index(&mirror)?;
    tame_index_reads_the_sparse_index(&mirror)?;
    println!("crates_io_api, crates-index and tame-index read {mirror}");
    Ok(())
}

fn send(mut request: Request<()>) -> Result<Response<Vec<u8>>> {
    // Some clients ask for HTTP/2 or gzip, which this HTTP client does not support.
    request.headers_mut().remove("accept-encoding");
    *request.version_mut() = HttpVersion::HTTP_11;
    let answer = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .new_agent()
        .run(request)?;
    let (parts, mut body) = answer.into_parts();
    let limit = 64 * 1024 * 1024;
    let body = body.with_config().limit(limit).read_to_vec()?;
    Ok(Response::from_parts(parts, body))
}

fn answers_fit_the_types_of_crates_io_api(mirror: &str) -> Result<()> {
    fn get<T: DeserializeOwned>(mirror: &str, path: &str) -> Result<T> {
        let answer = send(Request::get(format!("{mirror}/api/v1{path}")).body(())?)?;
        assert_eq!(answer.status(), 200, "{path}");
        serde_json::from_slice(answer.body()).map_err(|error| format!("{path}: {error}").into())
    }
    for name in ["itoa", "inflector", "openssl-src", "rand_core"] {
        let of_crate = |rest: &str| format!("/crates/{name}{rest}");
        let found: CrateResponse = get(mirror, &of_crate(""))?;
        let all: Versions = get(mirror, &of_crate("/versions"))?;
        assert_eq!(found.versions.len(), all.versions.len(), "{name}");
        let _owners: Owners = get(mirror, &of_crate("/owners"))?;
        let _downloads: CrateDownloads = get(mirror, &of_crate("/downloads"))?;
        let dependents: ReverseDependencies = get(mirror, &of_crate("/reverse_dependencies"))?;
        assert_eq!(dependents.dependencies.len(), dependents.versions.len());
        assert!(dependents.meta.total >= dependents.versions.len() as u64);
        for version in &found.versions {
            let of_version = |rest: &str| of_crate(&format!("/{}{rest}", version.num));
            let single: VersionResponse = get(mirror, &of_version(""))?;
            assert_eq!(single.version.id, version.id);
            let dependencies: Dependencies = get(mirror, &of_version("/dependencies"))?;
            assert!(
                dependencies
                    .dependencies
                    .iter()
                    .all(|it| it.version_id == version.id)
            );
            let authors: Authors = get(mirror, &of_version("/authors"))?;
            assert!(authors.meta.names.is_empty());
            let downloads: Downloads = get(mirror, &of_version("/downloads"))?;
            assert!(downloads.version_downloads.is_empty());
        }
    }
    let found: CratesPage = get(mirror, "/crates?q=to&per_page=100&sort=relevance")?;
    assert_eq!(found.meta.total as usize, found.crates.len());
    let all: CratesPage = get(mirror, "/crates?page=1&per_page=2")?;
    assert_eq!(all.crates.len(), 2);
    let summary: Summary = get(mirror, "/summary")?;
    assert_eq!(summary.num_crates, all.meta.total);
    Ok(())
}

fn crates_index_reads_the_sparse_index(mirror: &str) -> Result<()> {
    let home = tempfile::tempdir()?;
    let index = SparseIndex::with_path(home.path(), format!("sparse+{mirror}/index/"))?;
    let config = send(index.make_config_request()?.body(())?)?;
    let config = index.parse_config_response(config, true)?;
    let url = config.download_url("itoa", "1.0.0");
    assert_eq!(
        url,
        Some(format!("{mirror}/api/v1/crates/itoa/1.0.0/download"))
    );
    let ask = || -> Result<_> { send(index.make_cache_request("itoa")?.body(())?) };
    let found = index.parse_cache_response("itoa", ask()?, true)?;
    let versions = found.ok_or("there is no itoa")?.versions().len();
    // The second request has the ETag of the first answer.
    let again = ask()?;
    assert_eq!(again.status(), 304);
    let cached = index.parse_cache_response("itoa", again, true)?;
    assert_eq!(
        cached.ok_or("the cache is empty")?.versions().len(),
        versions
    );
    let missing = send(index.make_cache_request("no-such-crate")?.body(())?)?;
    assert!(
        index
            .parse_cache_response("no-such-crate", missing, true)?
            .is_none()
    );
    Ok(())
}

fn tame_index_reads_the_sparse_index(mirror: &str) -> Result<()> {
    let home = tempfile::tempdir()?;
    let root = home.path().to_str().ok_or("the path is not UTF-8")?.into();
    let url = format!("sparse+{mirror}/index/");
    let index = tame_index::index::SparseIndex::new(IndexLocation {
        url: IndexUrl::NonCratesIo(url.as_str().into()),
        root: IndexPath::UserSpecified(root),
        cargo_version: Some("1.95.0".parse()?),
    })?;
    let lock = FileLock::unlocked();
    let ask = |name: &'static str| -> Result<Option<IndexKrate>> {
        let name = name.try_into()?;
        let answer = send(index.make_remote_request(name, None, &lock)?)?;
        Ok(index.parse_remote_response(name, answer, true, &lock)?)
    };
    let found = ask("openssl-src")?.ok_or("there is no openssl-src")?;
    let again = ask("openssl-src")?.ok_or("the cache is empty")?;
    assert_eq!(found.versions.len(), again.versions.len());
    assert!(ask("no-such-crate")?.is_none());
    Ok(())
}
