//! The registry over its own API, on both engines.

#![allow(clippy::unused_async, reason = "both engines are used alike")]
#![allow(clippy::assigning_clones, reason = "speed is no concern here")]

/// Declares each case as one test per engine.
macro_rules! on_both_engines {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case($crate::support::sqlite()).await; })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case($crate::support::postgres().await).await; })*
        }
    };
}

mod apply;
mod audit;
mod concurrency;
mod delete;
mod entries;
mod hostile;
mod list;
mod names;
mod outage;
mod prefixes;
mod roles;
mod support;
mod watch;
