//! A fresh database of either engine.

#![allow(dead_code, unused_macros, reason = "each test file uses its part")]

use std::sync::atomic::{AtomicU32, Ordering};

use airfleet_local::Postgres;
use airfleet_sql::{Db, Options};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Where one test's database is, until dropped.
pub(crate) struct Store {
    pub(crate) url: String,
    _folder: Option<TempDir>,
}

impl Store {
    pub(crate) async fn open(&self, options: Options) -> Db {
        Db::open(&self.url, options).await.unwrap()
    }
}

#[allow(clippy::unused_async, reason = "both engines are used alike")]
pub(crate) async fn sqlite() -> Store {
    let folder = tempfile::tempdir().unwrap();
    Store {
        url: format!("sqlite:{}/new/folder/test.db", folder.path().display()),
        _folder: Some(folder),
    }
}

/// A database of its own on the one server that this test process starts.
pub(crate) async fn postgres() -> Store {
    static SERVER: OnceCell<Postgres> = OnceCell::const_new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let server = SERVER
        .get_or_init(|| async {
            Postgres::options()
                .max_connections(300)
                .start()
                .await
                .expect("a private PostgreSQL starts")
        })
        .await;
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    Store { url: server.create_database(&name).await.unwrap(), _folder: None }
}

/// Runs futures at the same time, each as a task, to their end.
pub(crate) async fn collect<F>(futures: impl IntoIterator<Item = F>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut tasks = tokio::task::JoinSet::new();
    for future in futures {
        tasks.spawn(future);
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// Declares each case as one test per engine.
macro_rules! on_both_engines {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(super::support::sqlite().await).await; })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(super::support::postgres().await).await; })*
        }
    };
}
