//! An S3 server on loopback that keeps objects in a directory, and fails on demand.
//!
//! It uses nothing else of the tests, so that tests in `src/store` can include this file, too.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// The only bucket.
pub(crate) const BUCKET: &str = "crate-files";

/// The user of the bucket.
pub(crate) const ACCESS_KEY: &str = "AKIAOFTHETESTS";

/// The secret key, which no log may contain.
pub(crate) const SECRET_KEY: &str = "the/secret+key/of/the/tests";

/// A fault of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum S3Fault {
    /// Nothing.
    None,
    /// Every answer has this status.
    Status(u16),
    /// Every answer to a write has this status.
    StatusOfWrites(u16),
    /// Every answer to a bulk delete has this status, as in stores without bulk delete.
    StatusOfBulkDeletes(u16),
    /// No request is answered until the fault changes.
    Hang,
    /// No crate file is sent until the fault changes.
    HangOnFiles,
}

/// The clients that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visitors {
    WithKeys,
    Anybody,
}

/// Serves one bucket until it is dropped.
pub(crate) struct S3Server {
    address: SocketAddr,
    root: TempDir,
    fault: Arc<watch::Sender<S3Fault>>,
    /// The paths of crate files that were requested in full.
    whole: Arc<Mutex<Vec<String>>>,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// Serves an empty bucket to clients with the keys.
    pub(crate) fn start() -> Self {
        Self::serve(Some(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY)))
    }

    /// Serves an empty bucket to all clients.
    pub(crate) fn start_open() -> Self {
        Self::serve(None)
    }

    fn serve(login: Option<SimpleAuth>) -> Self {
        let root = TempDir::new().unwrap();
        std::fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(root.path()).unwrap());
        let visitors = if login.is_some() {
            Visitors::WithKeys
        } else {
            Visitors::Anybody
        };
        if let Some(login) = login {
            builder.set_auth(login);
        }
        let service = builder.build();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        // Bound synchronously, because tests inside a runtime start one, too.
        let listener =
            std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        listener.set_nonblocking(true).unwrap();
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener).unwrap()
        };
        let server = Self {
            address: listener.local_addr().unwrap(),
            root,
            fault: Arc::new(watch::Sender::new(S3Fault::None)),
            whole: Arc::default(),
            runtime: Some(runtime),
        };
        let seen = (Arc::clone(&server.fault), Arc::clone(&server.whole));
        let accepting = accept(listener, (service, visitors), seen);
        drop(server.runtime.as_ref().unwrap().spawn(accepting));
        server
    }

    /// `http://` and the address.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `STORAGE_URL`, and the variables for the endpoint and the keys.
    pub(crate) fn settings(&self) -> [(&'static str, String); 6] {
        [
            ("STORAGE_URL", format!("s3://{BUCKET}")),
            ("AWS_ENDPOINT", self.endpoint()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }

    /// The directory of the objects. Each has the path of its key.
    pub(crate) fn bucket(&self) -> PathBuf {
        self.root.path().join(BUCKET)
    }

    /// The paths of crate files that were requested in full, in the order of the requests.
    pub(crate) fn read_whole(&self) -> Vec<String> {
        self.whole.lock().unwrap().clone()
    }

    /// Changes the fault, for requests that hang, too.
    pub(crate) fn set(&self, fault: S3Fault) {
        let _before = self.fault.send_replace(fault);
    }

    /// Refuses connections from now on, and closes the open ones.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(
    listener: TcpListener,
    (service, visitors): (S3Service, Visitors),
    (fault, whole): (Arc<watch::Sender<S3Fault>>, Arc<Mutex<Vec<String>>>),
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (service, fault) = (service.clone(), Arc::clone(&fault));
        let whole = Arc::clone(&whole);
        let answering = service_fn(move |mut request: Request<Incoming>| {
            if visitors == Visitors::Anybody {
                // Google's client always sends a token, even an empty one.
                drop(request.headers_mut().remove(header::AUTHORIZATION));
            }
            let path = request.uri().path();
            let is_whole = request.method() == Method::GET
                && path.ends_with(".crate")
                && !request.headers().contains_key(header::RANGE);
            if is_whole {
                whole.lock().unwrap().push(path.to_owned());
            }
            answer(request, service.clone(), fault.subscribe())
        });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), answering);
        drop(tokio::spawn(serving));
    }
}

async fn answer(
    request: Request<Incoming>,
    service: S3Service,
    mut fault: watch::Receiver<S3Fault>,
) -> Result<Response<Body>, HttpError> {
    let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let reads_a_file = !writes && request.uri().path().ends_with(".crate");
    let is_bulk_delete = *request.method() == Method::POST
        && request
            .uri()
            .query()
            .is_some_and(|query| query.starts_with("delete"));
    let now = fault.wait_for(|fault| match fault {
        S3Fault::Hang => false,
        S3Fault::HangOnFiles => !reads_a_file,
        S3Fault::None
        | S3Fault::Status(_)
        | S3Fault::StatusOfWrites(_)
        | S3Fault::StatusOfBulkDeletes(_) => true,
    });
    let now = now.await;
    let now = now.map_or(S3Fault::None, |fault| *fault);
    match now {
        S3Fault::Status(status) => Ok(refusal(status)),
        S3Fault::StatusOfWrites(status) if writes => {
            // A client that is still sending would see a reset, and retry.
            drop(request.into_body().collect().await);
            Ok(refusal(status))
        }
        S3Fault::StatusOfBulkDeletes(status) if is_bulk_delete => {
            drop(request.into_body().collect().await);
            Ok(refusal(status))
        }
        _ => Service::call(&service, request).await,
    }
}

fn refusal(status: u16) -> Response<Body> {
    let mut refusal = Response::new(Body::empty());
    *refusal.status_mut() = StatusCode::from_u16(status).unwrap();
    refusal
}
