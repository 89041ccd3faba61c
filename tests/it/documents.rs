//! The documents, `app.json`, `Procfile` and CI agree with the code.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crates_io_mirror::{App, Config, VARIABLES};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const README: &str = include_str!("../../README.md");
const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
const GIT_INDEX: &str = include_str!("../../docs/git-index.md");
const HTTP_API: &str = include_str!("../../docs/http-api.md");
const ROUTER: &str = include_str!("../../src/http/router.rs");

/// A visitor reads no more words than this. Words in code count.
const README_WORDS_MAX: usize = 900;

/// Files in the folders of `benches` that are parts of other scripts.
const SHARED: [&str; 4] = ["common.sh", "file_server.py", "http2.py", "scene.py"];

/// A row of the table of settings in docs/configuration.md.
struct Setting {
    variable: String,
    default: Option<String>,
}

#[test]
fn readme_is_short() {
    let words = README.split_whitespace().count();
    assert!(words <= README_WORDS_MAX, "{words} words");
}

#[test]
fn every_link_between_the_documents_leads_to_a_file_and_a_heading() {
    let (mut links, mut broken) = (0, Vec::new());
    for document in documents() {
        let text = fs::read_to_string(at(&document)).unwrap();
        let folder = Path::new(&document).parent().unwrap();
        for target in links_of(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() {
                at(&document)
            } else {
                at(folder.join(file).to_str().unwrap())
            };
            // A link to a folder is right, too.
            let leads_there = if heading.is_empty() {
                Path::new(&file).exists()
            } else {
                let content = fs::read_to_string(&file).unwrap_or_default();
                anchors(&content).iter().any(|one| one == heading)
            };
            if !leads_there {
                broken.push(format!("{document}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(links > 40, "{links}");
}

#[test]
fn every_document_is_reached_from_the_readme() {
    for document in documents() {
        if let Some(name) = document.strip_prefix("docs/") {
            assert!(README.contains(&format!("(docs/{name})")), "{document}");
        }
    }
}

/// benches/compare/peers.sh measures all figures in one run, and writes both files.
#[test]
fn readme_quotes_the_figures_of_the_performance_document() {
    let (_, quoted) = README.split_once("<!-- peers: begin -->").unwrap();
    let (quoted, _) = quoted.split_once("<!-- peers: end -->").unwrap();
    let performance = fs::read_to_string(at("docs/performance.md")).unwrap();
    let (_, table) = performance.split_once("<!-- peers: begin -->").unwrap();
    let (table, _) = table.split_once("<!-- peers: end -->").unwrap();
    let figures: Vec<&str> = quoted
        .split(|letter: char| !letter.is_ascii_digit() && letter != ',')
        .map(|figure| figure.trim_matches(','))
        .filter(|figure| !figure.is_empty())
        .collect();
    assert_eq!(figures.len(), 5, "{figures:?}");
    for figure in figures {
        assert!(table.contains(&format!(" {figure} ")), "{figure}");
    }
}

#[test]
fn the_performance_document_lists_every_script_that_measures() {
    let text = fs::read_to_string(at("docs/performance.md")).unwrap();
    let mut listed = 0;
    for (folder, extension) in [("benches/compare", "sh"), ("benches/attack", "py")] {
        for entry in fs::read_dir(at(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.extension().is_some_and(|its| its == extension) && !SHARED.contains(&name) {
                listed += 1;
                assert!(text.contains(&format!("\n| `{name}` |")), "{name}");
            }
        }
    }
    assert!(listed > 20, "{listed}");
}

/// The paths of README, of the other documents at the root and of everything in docs/.
fn documents() -> Vec<String> {
    let in_docs = fs::read_dir(at("docs")).unwrap().map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        format!("docs/{name}")
    });
    let others = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ];
    others
        .map(str::to_owned)
        .into_iter()
        .chain(in_docs.filter(|path| path.ends_with(".md")))
        .collect()
}

/// The targets of all links and pictures outside of code.
fn links_of(text: &str) -> impl Iterator<Item = &str> {
    outside_of_code_blocks(text).flat_map(|line| {
        let links = line.split("](").skip(1);
        links.filter_map(|rest| Some(rest.split_once(')')?.0))
    })
}

/// The anchors that GitHub gives to the headings of a document.
fn anchors(text: &str) -> Vec<String> {
    outside_of_code_blocks(text)
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}

fn outside_of_code_blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

#[test]
fn the_documents_explain_every_variable_and_no_other() {
    let variables: Vec<String> = settings().into_iter().map(|row| row.variable).collect();
    assert_eq!(variables, VARIABLES);
}

#[test]
fn the_documents_have_the_defaults_of_the_code() {
    let explicit = settings()
        .into_iter()
        .filter_map(|row| Some((row.variable, row.default?)));
    let explicit = Config::from_pairs(explicit).unwrap();
    let implicit = Config::from_pairs([]).unwrap();
    assert_eq!(format!("{explicit:?}"), format!("{implicit:?}"));
}

#[test]
fn app_json_names_only_variables_that_exist_with_values_that_are_valid() {
    let manifest = fs::read_to_string(at("app.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let env = manifest["env"].as_object().unwrap();
    assert!(env.contains_key("GIT_REPO_URL"));
    // Heroku sets PORT. A value in app.json would be wrong.
    assert!(!env.contains_key("PORT"));
    let mut defaults = Vec::new();
    for (variable, entry) in env {
        assert!(VARIABLES.contains(&variable.as_str()), "{variable}");
        assert!(entry["description"].is_string(), "{variable}");
        assert_eq!(entry["required"], false, "{variable}");
        if let Some(value) = entry["value"].as_str() {
            defaults.push((variable.clone(), value.to_owned()));
        }
    }
    // All values are the defaults, except the one that describes Heroku's router.
    let proxies: Vec<_> = defaults
        .iter()
        .filter(|(variable, _)| variable == "TRUSTED_PROXIES")
        .cloned()
        .collect();
    assert_eq!(proxies.len(), 1);
    let prefilled = Config::from_pairs(defaults).unwrap();
    assert_eq!(
        format!("{prefilled:?}"),
        format!("{:?}", Config::from_pairs(proxies).unwrap())
    );
    let buildpack = manifest["buildpacks"][0]["url"].as_str().unwrap();
    let heroku = fs::read_to_string(at("docs/heroku.md")).unwrap();
    assert!(heroku.contains(buildpack), "{buildpack}");
}

#[test]
fn the_procfile_starts_the_binary_of_this_package() {
    let binary = Path::new(env!("CARGO_BIN_EXE_crates-io-mirror"));
    let name = binary.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        fs::read_to_string(at("Procfile")).unwrap(),
        format!("web: ./target/release/{name}\n")
    );
}

#[test]
fn ci_runs_both_commands_of_the_readme() {
    let ci = fs::read_to_string(at(".ci/run")).unwrap();
    let workflow = fs::read_to_string(at(".github/workflows/ci.yml")).unwrap();
    assert!(README.contains("\ncargo run --release ") && README.contains("\ncargo test "));
    // CI adds `--locked`, and starts the release build as the Procfile does.
    assert!(ci.contains("cargo test --locked") && ci.contains("cargo build --locked --release"));
    assert!(workflow.contains("run: .ci/run"));
}

#[test]
fn ci_builds_with_the_oldest_rust_that_the_package_promises() {
    let workflow = fs::read_to_string(at(".github/workflows/ci.yml")).unwrap();
    assert!(workflow.contains("cargo \"+$version\" check --locked"));
    let promised = format!("Rust {} or later", env!("CARGO_PKG_RUST_VERSION"));
    assert!(README.contains(&promised), "{promised}");
}

/// The promise is the highest `rust-version` of all dependencies that are built. README also names the higher one of
/// the tests.
#[test]
fn the_promised_rust_is_the_lowest_that_the_dependencies_allow() {
    let versions = Command::new(env!("CARGO")).arg("-vV").output().unwrap();
    let versions = String::from_utf8(versions.stdout).unwrap();
    let host = versions
        .lines()
        .find_map(|line| line.strip_prefix("host: "));
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", host.unwrap()])
        .current_dir(ROOT)
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let needed = |kinds: &[Option<&str>]| {
        let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
        let root = metadata["resolve"]["root"].as_str().unwrap();
        let (mut reached, mut next) = (HashSet::new(), vec![root]);
        while let Some(id) = next.pop() {
            if !reached.insert(id) {
                continue;
            }
            let node = nodes.iter().find(|node| node["id"] == id).unwrap();
            for dependency in node["deps"].as_array().unwrap() {
                let mut its_kinds = dependency["dep_kinds"].as_array().unwrap().iter();
                // Development dependencies of dependencies are not built.
                if its_kinds.any(|kind| kinds.contains(&kind["kind"].as_str())) {
                    next.push(dependency["pkg"].as_str().unwrap());
                }
            }
        }
        let packages = metadata["packages"].as_array().unwrap().iter();
        let others = packages.filter(|package| package["id"] != root);
        others
            .filter(|package| reached.contains(package["id"].as_str().unwrap()))
            .filter_map(|package| package["rust_version"].as_str())
            .map(minor)
            .max()
            .unwrap()
    };
    let built = needed(&[None, Some("build")]);
    assert_eq!(built, minor(env!("CARGO_PKG_RUST_VERSION")));
    let tested = needed(&[None, Some("build"), Some("dev")]);
    assert!(README.contains(&format!("(1.{tested} for the tests)")));
}

/// Returns `89` for `1.89` and for `1.89.0`.
fn minor(version: &str) -> u32 {
    version.split('.').nth(1).unwrap().parse().unwrap()
}

#[test]
fn every_file_and_item_in_the_documents_exists() {
    let mut named = 0;
    for document in documents() {
        let text = fs::read_to_string(at(&document)).unwrap();
        let is_of_developers = ["ARCHITECTURE.md", "CONTRIBUTING.md"].contains(&document.as_str());
        for name in text
            .lines()
            .flat_map(|line| line.split('`').skip(1).step_by(2))
        {
            let first = name.split(['/', ':']).next().unwrap();
            let folders = ["src", "tests", "benches", "deploy", ".ci", ".github"];
            // The path is the first word. The others are arguments of a command.
            let path = name.split(' ').next().unwrap();
            let is_path = folders.contains(&first) && path.contains('/');
            let is_ours = Path::new(&at(&format!("src/{first}"))).is_dir();
            let is_file = name.ends_with(".md") || name.ends_with(".toml");
            if is_path || (is_file && is_of_developers) {
                named += 1;
                assert!(Path::new(&at(path)).exists(), "{document}: {name}");
            } else if name.contains("::") && is_ours && is_of_developers {
                named += 1;
                assert!(is_item(name), "{document}: {name}");
            }
        }
    }
    assert!(named > 30, "{named}");
}

/// Whether the first module of a path contains a module or an item with the last name of the path.
fn is_item(path: &str) -> bool {
    let (module, _) = path.split_once("::").unwrap();
    let (_, item) = path.rsplit_once("::").unwrap();
    let keywords = [
        "fn", "struct", "enum", "trait", "type", "const", "static", "mod",
    ];
    sources(&[&format!("src/{module}")]).lines().any(|line| {
        let words: Vec<&str> = line
            .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .collect();
        words
            .windows(2)
            .any(|pair| keywords.contains(&pair[0]) && pair[1] == item)
    })
}

#[tokio::test]
async fn every_route_in_the_documents_exists() {
    let data = tempfile::tempdir().unwrap();
    let config = Config::from_pairs(
        [
            ("BIND_ADDRESS", "127.0.0.1"),
            ("PORT", "0"),
            ("DATA_DIR", data.path().to_str().unwrap()),
            ("GIT_REPO_URL", "http://127.0.0.1:1/index.git"),
            ("ADVISORY_DB_URL", "http://127.0.0.1:1/db.git"),
        ]
        .map(|(variable, value)| (variable.to_owned(), value.to_owned())),
    );
    let app = App::bind(config.unwrap()).await.unwrap();
    let address = app.local_addr();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(app.run(async move {
        let _either_way = stopped.await;
    }));
    for route in routes() {
        let path = route
            .replace("{name}", "serde")
            .replace("{version}", "1.0.0")
            .replace("{file}", "serde-1.0.0.crate")
            .replace("{time}", "2026-01-01")
            .replace("{*path}", "se/rd/serde");
        let status = status_of(address, &path).await;
        // Without an index, a route that needs one answers 503. A path that does not exist would give 404 instead of
        // 405.
        let as_expected = match status.as_str() {
            "405" => takes_post(&route),
            "503" => !takes_post(&route),
            // Without the query of git, the request is refused.
            "403" => route.starts_with("/git/") && route.ends_with("/info/refs"),
            "200" | "302" => true,
            _ => false,
        };
        assert!(as_expected, "{path}: {status}");
    }
    assert_eq!(status_of(address, "/no-such-route").await, "404");
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

#[test]
fn the_documents_list_every_route() {
    let listed = routes();
    let code = ROUTER
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    for line in code.filter(|line| !line.contains("format!")) {
        for text in line.split('"').skip(1).step_by(2) {
            // The description of the API contains the other routes.
            let is_listed = listed.iter().any(|route| route == text);
            let is_described = text.starts_with("/api/v1/");
            assert!(
                !text.starts_with('/') || is_listed || is_described,
                "{text}"
            );
        }
    }
}

#[test]
fn cargo_reads_the_configuration_in_the_documents() {
    let [sparse] = &code_blocks(README, "toml")[..] else {
        panic!("README has one block of TOML");
    };
    let [git] = &code_blocks(GIT_INDEX, "toml")[..] else {
        panic!("docs/git-index.md has one block of TOML");
    };
    assert!(sparse.contains("\"sparse+https://mirror.example/index/\""));
    assert!(git.contains("\"https://mirror.example/git/index\""));
    assert_is_read_by_cargo(sparse);
    assert_is_read_by_cargo(git);
}

#[track_caller]
fn assert_is_read_by_cargo(source: &str) {
    let project = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| fs::write(project.path().join(path), text).unwrap();
    fs::create_dir_all(project.path().join("src")).unwrap();
    fs::create_dir_all(project.path().join(".cargo")).unwrap();
    write("src/lib.rs", "");
    write(".cargo/config.toml", source);
    write(
        "Cargo.toml",
        "[package]\nname = \"probe\"\nedition = \"2024\"\n[dependencies]\nserde = \"1\"\n",
    );
    let cargo = Command::new(env!("CARGO"))
        .args(["generate-lockfile", "--offline"])
        .current_dir(project.path())
        .env("CARGO_HOME", project.path().join("home"))
        .output()
        .unwrap();
    // cargo gets as far as the empty index of the replacement, which stands in for crates.io.
    let said = String::from_utf8_lossy(&cargo.stderr).into_owned();
    assert!(
        said.contains("`mirror` index (which is replacing registry `crates-io`)")
            || said.contains("mirror.example"),
        "{said}"
    );
}

#[test]
fn the_settings_for_a_push_in_the_documents_are_valid_and_need_each_other() {
    let blocks = code_blocks(GIT_INDEX, "sh");
    let block = blocks.iter().find(|block| block.contains("INDEX_PUSH_URL"));
    let pairs: Vec<(String, String)> = block
        .unwrap()
        .lines()
        .map(|line| line.split_once('=').unwrap())
        .map(|(variable, value)| (variable.to_owned(), value.to_owned()))
        .collect();
    assert!(pairs.iter().any(|(variable, _)| variable == "PUBLIC_URL"));
    Config::from_pairs(pairs.clone()).unwrap();
    let alone = pairs
        .into_iter()
        .filter(|(variable, _)| variable == "INDEX_PUSH_URL");
    let error = Config::from_pairs(alone).unwrap_err().to_string();
    assert!(error.contains("PUBLIC_URL"), "{error}");
}

#[test]
fn no_file_names_the_hosts_that_serve_the_official_index_and_files() {
    // In pieces, so that this file does not name the hosts.
    let hosts = ["index", "static"].map(|host| format!("{host}.{}", "crates.io"));
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(ROOT)
        .output();
    // Without git or outside of a repository, there is no list of files. A source archive was checked when it was made.
    let Ok(Output { status, stdout, .. }) = listed else {
        return;
    };
    if !status.success() {
        return;
    }
    for name in String::from_utf8(stdout).unwrap().lines() {
        let content = fs::read(at(name)).unwrap_or_default();
        let content = String::from_utf8_lossy(&content);
        for host in &hosts {
            assert!(!content.contains(host.as_str()), "{name} names {host}");
        }
    }
}

fn at(path: &str) -> String {
    format!("{ROOT}/{path}")
}

/// The rows of the table of settings.
fn settings() -> Vec<Setting> {
    rows(CONFIGURATION, "| variable | default | meaning |")
        .into_iter()
        .map(|cells| Setting {
            variable: code(&cells[0]).unwrap(),
            default: code(&cells[1]),
        })
        .collect()
}

/// The paths in the table of routes.
fn routes() -> Vec<String> {
    let rows = rows(HTTP_API, "| route | answer |");
    rows.iter().map(|cells| code(&cells[0]).unwrap()).collect()
}

/// Whether the table of routes says that a route takes `POST`.
fn takes_post(route: &str) -> bool {
    let rows = rows(HTTP_API, "| route | answer |");
    let row = rows
        .iter()
        .find(|cells| code(&cells[0]).as_deref() == Some(route));
    row.is_some_and(|cells| cells[1].ends_with("`POST`"))
}

/// The cells of the rows of a table.
fn rows(document: &str, head: &str) -> Vec<Vec<String>> {
    let (_, table) = document.split_once(head).unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells = row.trim_matches('|').split(" | ");
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

/// The text between backticks, if the cell contains nothing else.
fn code(cell: &str) -> Option<String> {
    let code = cell.strip_prefix('`')?.strip_suffix('`')?;
    Some(code.to_owned())
}

/// A document's code blocks of one language.
fn code_blocks(document: &str, language: &str) -> Vec<String> {
    document
        .split(&format!("```{language}\n"))
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("```")?.0.to_owned()))
        .collect()
}

/// The status of a plain `GET`.
async fn status_of(address: SocketAddr, path: &str) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: mirror.example\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn every_test_in_security_md_exists() {
    let document = fs::read_to_string(at("SECURITY.md")).unwrap();
    let sources = sources(&["src", "tests"]);
    let names: Vec<&str> = document
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| {
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
        })
        .filter(|name| name.matches('_').count() >= 3)
        .collect();
    assert!(names.len() > 30, "{}", names.len());
    for name in names {
        assert!(sources.contains(&format!("fn {name}(")), "{name}");
    }
}

/// A tag can be moved to other code. A commit cannot.
#[test]
fn every_action_of_the_workflows_is_pinned_by_its_commit() {
    let mut pinned = 0;
    for entry in fs::read_dir(at(".github/workflows")).unwrap() {
        let path = entry.unwrap().path();
        let workflow = fs::read_to_string(&path).unwrap();
        let used = workflow
            .lines()
            .filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("uses: "));
        for action in used {
            let (_, commit) = action.split_once('@').unwrap();
            let (commit, tag) = commit.split_once(" # v").unwrap_or_default();
            let is_hash = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(is_hash && !tag.is_empty(), "{}: {action}", path.display());
            pinned += 1;
        }
        assert!(workflow.contains("\npermissions:"), "{}", path.display());
    }
    assert!(pinned > 5, "{pinned}");
}

/// All Rust code below some folders.
fn sources(folders: &[&str]) -> String {
    let files = rust_files(folders).into_iter();
    files
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

fn rust_files(folders: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories: Vec<PathBuf> = folders.iter().map(|folder| at(folder).into()).collect();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn the_manifest_names_the_files_with_unsafe_code() {
    let manifest = fs::read_to_string(at("Cargo.toml")).unwrap();
    let found = rust_files(&["src"]).into_iter().filter(|path| {
        let source = fs::read_to_string(path).unwrap();
        source.contains("\n    unsafe_code,\n")
    });
    let found: Vec<String> = found
        .map(|path| path.strip_prefix(ROOT).unwrap().display().to_string())
        .collect();
    assert_eq!(found.len(), 3, "{found:?}: ARCHITECTURE.md says three");
    for path in found {
        assert!(manifest.contains(&path), "{path}");
    }
}
