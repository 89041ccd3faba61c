//! The whole stack, called without a socket, on a real git index.

mod changes;
mod downloads;
mod metadata;
mod pages;
mod policy;
mod refusals;
mod sparse;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{AppState, Settings, application};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::index::IndexHandle;
use crate::index::testing::TestIndex;
use crate::journal::{Journal, JournalSettings};
use crate::server::{Admission, Asked, Exchange};
use crate::upstream::DownloadTemplate;

/// Crates that show the differences between the endpoints.
const FILES: &[(&str, &str)] = &[
    (
        "mi/xe/mixed_case-name",
        concat!(
            r#"{"name":"Mixed_Case-Name","vers":"0.1.0-alpha","deps":[],"cksum":"a0","features":{},"yanked":false,"pubtime":"2020-01-01T00:00:00Z"}"#,
            "\njunk\n\n",
            r#"{"name":"Mixed_Case-Name","vers":"0.5.0","deps":[{"name":"renamed","req":"^1","package":"PLAIN","features":["x",""],"optional":true,"default_features":false,"target":"cfg(windows)","kind":"dev"},{"name":"zz","req":"*","kind":"build"},{"name":"inflector","req":"*","kind":null},{"name":"aa","req":"=2","kind":"weird"}],"cksum":"a1","features":{"f":["g"]},"features2":{"f":["dep:zz"]},"yanked":false,"links":"native","rust_version":"1.60","v":2,"pubtime":"2020-02-01T00:00:00Z"}"#,
            "\n",
            r#"{"name":"Mixed_Case-Name","vers":"1.0.0","deps":[],"cksum":"a2","features":{},"yanked":true,"pubtime":"2020-03-01T00:00:00Z"}"#,
            "\n",
            r#"{"name":"Mixed_Case-Name","vers":"2.0.0-rc.1","deps":[],"cksum":"a3","features":{},"yanked":false,"pubtime":"2020-04-01T00:00:00Z"}"#,
            "\n",
            r#"{"name":"Mixed_Case-Name","vers":"0.5.1","deps":{"new":"shape"},"cksum":"a4","yanked":false,"v":9}"#,
            "\n"
        ),
    ),
    (
        "bu/il/built",
        concat!(
            r#"{"name":"built","vers":"1.0.0+a","deps":[],"cksum":"0000000000000000000000000000000000000000000000000000000000000abc","features":{},"yanked":false}"#,
            "\r\n",
            r#"{"name":"built","vers":"1.0.0+b","deps":[],"cksum":"b1","features":{},"yanked":false}"#,
        ),
    ),
    (
        "ya/nk/yanked",
        concat!(
            r#"{"name":"yanked","vers":"1.0.0","deps":[],"cksum":"c0","features":{},"yanked":true}"#,
            "\n",
            r#"{"name":"yanked","vers":"1.1.0","deps":[],"cksum":"c1","features":{},"yanked":true}"#,
            "\n"
        ),
    ),
    (
        "in/fl/inflector",
        r#"{"name":"Inflector","vers":"0.1.0","deps":[],"cksum":"d0","features":{},"yanked":false}"#,
    ),
    ("em/pt/empty", ""),
    ("ju/nk/junk", "not json\n{}\n"),
];

/// A mirror that can be called.
struct TestMirror {
    state: Arc<AppState>,
    index: Option<TestIndex>,
}

/// An answer with its body read to the end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl TestMirror {
    /// A mirror that has cloned [`FILES`].
    fn ready() -> Self {
        Self::with_template("https://files.example/crates/{crate}/{crate}-{version}.crate")
    }

    fn with_template(template: &str) -> Self {
        let mut index = TestIndex::new(FILES);
        index.refresh();
        let state = state(template, index.handle.clone());
        Self {
            state,
            index: Some(index),
        }
    }

    /// A mirror with `PUBLIC_URL`.
    fn with_public_url(url: &str) -> Self {
        let mut index = TestIndex::new(FILES);
        index.refresh();
        let settings = Settings {
            public_url: Some(url.to_owned()),
            ..settings("https://files.example/{crate}")
        };
        let state = AppState::new(
            settings,
            index.handle.clone(),
            None,
            Catalog::new(),
            journal(),
            None,
            Arc::default(),
        );
        Self {
            state,
            index: Some(index),
        }
    }

    /// A mirror whose first clone has not finished.
    fn starting(template: &str) -> Self {
        Self {
            state: state(template, IndexHandle::new()),
            index: None,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[]).await
    }

    async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn send(&self, request: Request) -> Answer {
        let asked = asked(request);
        // The exchange ends when the answer has been read.
        let _exchange = asked.exchange.clone();
        let answered = application(Arc::clone(&self.state))(asked).await;
        Answer::read(answered.response).await
    }
}

/// A request without a connection.
fn asked(request: Request) -> Asked {
    Asked {
        request,
        exchange: Exchange::with_nobody(),
        admission: Admission::Granted,
    }
}

impl Answer {
    async fn read(response: Response) -> Self {
        let (mut parts, body) = response.into_parts();
        // Each answer has another id, and tests compare answers.
        parts.headers.remove("x-request-id");
        Self {
            status: parts.status,
            headers: parts.headers,
            body: axum::body::to_bytes(body, usize::MAX).await.unwrap(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The one text of the error envelope.
    #[track_caller]
    fn detail(&self) -> String {
        assert_eq!(self.header("content-type"), "application/json");
        let json = self.json();
        let detail = json["errors"][0]["detail"].as_str().unwrap().to_owned();
        assert_eq!(
            json,
            serde_json::json!({ "errors": [{ "detail": detail }] })
        );
        detail
    }
}

fn state(template: &str, index: IndexHandle) -> Arc<AppState> {
    AppState::new(
        settings(template),
        index,
        None,
        Catalog::new(),
        journal(),
        None,
        Arc::default(),
    )
}

/// A journal whose task does not run.
fn journal() -> Journal {
    let settings = JournalSettings {
        data_dir: "/nonexistent".into(),
        retention: Duration::ZERO,
        clock: Clock::system(),
    };
    Journal::new(settings, CancellationToken::new())
}

fn settings(template: &str) -> Settings {
    Settings {
        download_policy: crate::http::DownloadPolicy::None,
        download: DownloadTemplate::parse(template).unwrap(),
        public_url: None,
        tls: false,
        #[cfg(feature = "otlp")]
        traces: None,
        #[cfg(feature = "otlp")]
        trusted_proxies: crate::server::TrustedProxies::default(),
        hsts_max_age_secs: None,
        upstream: "https://git.example/index.git".to_owned(),
        max_staleness: Some(Duration::from_secs(3600)),
        clock: Clock::system(),
        index_reads_max: 2,
        git_children_max: 2,
    }
}
