//! The change feed with a time, while the catalog and the journal are not at the same state of the index.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Answer, TestMirror, application, asked, settings};
use crate::catalog::{Catalog, CatalogSettings, CatalogTask};
use crate::clock::Clock;
use crate::http::AppState;
use crate::index::testing::{TestIndex, line};
use crate::journal::{Journal, JournalSettings, JournalTask};
use crate::server::Exchange;

/// A task that ends when it is told to.
pub(super) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(super) fn start<F: Future<Output: Send> + Send + 'static>(
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Self {
        let stop = CancellationToken::new();
        let work = run(stop.clone());
        let task = tokio::spawn(async move { drop(work.await) });
        Self { stop, task }
    }

    pub(super) async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// One version of `a` for each of these numbers, published a day after the other.
fn versions(numbers: &[u8]) -> String {
    let lines = numbers.iter().map(|number| {
        let line = line("a", *number);
        let time = format!(r#","pubtime":"2026-01-{number:02}T00:00:00Z"}}"#);
        format!("{}{time}\n", line.strip_suffix('}').unwrap())
    });
    lines.collect()
}

/// The versions in an answer, and its cursor.
fn read(answer: &Answer) -> (Vec<String>, String) {
    assert_eq!(answer.status, 200);
    let lines = String::from_utf8(answer.body.to_vec()).unwrap();
    let mut versions = Vec::new();
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        match line["cursor"].as_str() {
            Some(cursor) => return (versions, cursor.to_owned()),
            None => versions.push(line["version"].as_str().unwrap().to_owned()),
        }
    }
    panic!("there is no head: {lines}");
}

#[tokio::test]
async fn a_list_since_a_time_leads_to_the_place_where_the_journal_shows_the_same() {
    const SINCE: &str = "/changes?since=2026-01-01T00:00:00Z";
    let data = TempDir::new().unwrap();
    let mut index = TestIndex::new(&[("1/a", &versions(&[1]))]);
    index.refresh();
    let catalog = Catalog::new();
    let catalog_settings = CatalogSettings {
        data_dir: data.path().to_owned(),
        temp_dir: data.path().to_owned(),
    };
    let journal_settings = JournalSettings {
        data_dir: data.path().to_owned(),
        retention: Duration::from_secs(60),
        clock: Clock::system(),
    };
    let journal = Journal::new(journal_settings, CancellationToken::new());
    let start_catalog = || {
        let handle = index.handle.clone();
        let task = CatalogTask::new(catalog_settings.clone(), catalog.clone(), handle);
        Running::start(|stop| task.run(stop))
    };
    let start_journal = || {
        let task = JournalTask::new(journal.clone(), index.handle.clone());
        Running::start(|stop| task.run(stop))
    };
    let state = AppState::new(
        settings("https://files.example/{crate}"),
        index.handle.clone(),
        None,
        catalog.clone(),
        journal.clone(),
        None,
        Arc::default(),
    );
    let mirror = TestMirror { state, index: None };
    let ask = async |since: &str| mirror.get(since).await;
    let journal_is_at = async |commit: &str| {
        while journal
            .head()
            .await
            .map_or(String::new(), |head| head.commit)
            != commit
        {
            tokio::task::yield_now().await;
        }
    };
    let catalog_is_at = async |commit: &str| {
        while catalog.status().commit.as_deref() != Some(commit) {
            tokio::task::yield_now().await;
        }
    };
    let first = index.handle.view().unwrap().commit().to_string();
    let (its_catalog, its_journal) = (start_catalog(), start_journal());
    journal_is_at(&first).await;
    catalog_is_at(&first).await;
    let (listed, at_first) = read(&ask(SINCE).await);
    assert_eq!(listed, ["0.1.0"]);
    assert_eq!(
        mirror.state.look_up_permits.usage(),
        (0, 1),
        "it reads index files"
    );

    // The catalog stays behind, so the cursor is before the last step.
    its_catalog.end().await;
    let second = index.commit(&[("1/a", &versions(&[1, 2]))]);
    index.refresh();
    journal_is_at(&second).await;
    let (listed, cursor) = read(&ask(SINCE).await);
    assert_eq!(
        (listed.as_slice(), &cursor),
        (&["0.1.0".to_owned()][..], &at_first)
    );
    let (missed, at_second) = read(&ask(&format!("/changes?since={cursor}")).await);
    assert_eq!(missed, ["0.2.0"]);

    // Now the journal stays behind, so its last step comes again.
    its_journal.end().await;
    let third = index.commit(&[("1/a", &versions(&[1, 2, 3]))]);
    index.refresh();
    let its_catalog = Running::start(|stop| {
        let handle = index.handle.clone();
        CatalogTask::new(catalog_settings.clone(), catalog.clone(), handle).run(stop)
    });
    catalog_is_at(&third).await;
    let (listed, cursor) = read(&ask(SINCE).await);
    assert_eq!((listed.len(), cursor), (3, at_second));
    // Each page of a list needs a permit, as other look-ups do.
    let (mut since, mut listed) = (SINCE.to_owned(), Vec::new());
    for _page in 0..3 {
        mirror.state.look_up_permits.usage();
        let (more, cursor) = read(&ask(&format!("{since}&limit=1")).await);
        listed.extend(more);
        since = format!("/changes?since={cursor}");
        assert_eq!(mirror.state.look_up_permits.usage(), (0, 1), "{cursor}");
    }
    assert_eq!(listed, ["0.1.0", "0.2.0", "0.3.0"]);
    limits_of_followers(&mirror).await;

    // The catalog shows a state that the journal never had, so no place matches.
    its_catalog.end().await;
    index.commit(&[("1/a", &versions(&[1, 2, 3, 4]))]);
    index.refresh();
    let refused = ask(SINCE).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), "5");
}

/// A peer has 32 places, and all peers together have 256.
async fn limits_of_followers(mirror: &TestMirror) {
    let follow = async |peer: u8| {
        let request = Request::builder().uri("/changes");
        let request = request.header("accept", "text/event-stream");
        let mut asked = asked(request.body(Body::empty()).unwrap());
        asked.exchange = Exchange::with([10, 0, 0, peer].into());
        let exchange = asked.exchange.clone();
        let answer = application(Arc::clone(&mirror.state))(asked).await.response;
        (exchange, answer)
    };
    let mut followers = Vec::new();
    for peer in 1..=8 {
        for _place in 0..32 {
            let (exchange, answer) = follow(peer).await;
            assert_eq!(answer.status(), 200);
            followers.push((exchange, answer));
        }
        let (_exchange, refused) = follow(peer).await;
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "5");
    }
    let permits = &mirror.state.follower_permits;
    let ninth = Exchange::with([10, 0, 0, 9].into());
    assert_eq!(permits.usage().0, 256);
    assert!(permits.try_take(&ninth, 1).is_none());
    // A place is free again when its answer ends.
    followers.pop();
    assert_eq!(permits.usage().0, 255);
    assert_eq!(follow(9).await.1.status(), 200);
    followers.clear();
    assert_eq!(permits.usage().0, 0);
    assert_eq!(follow(1).await.1.status(), 200);
}
