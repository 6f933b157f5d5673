use std::{
    convert::Infallible,
    future::pending,
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;

const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn the_first_stage_lets_tasks_finish() {
    let shutdown = Shutdown::new();
    let tasks = Tasks::new(shutdown.clone());
    let finished = Arc::new(AtomicBool::new(false));
    let (stop, done) = (shutdown.clone(), Arc::clone(&finished));
    tasks.spawn_critical("reconciler", async move {
        stop.triggered().await;
        tokio::task::yield_now().await;
        done.store(true, Ordering::SeqCst);
        Ok::<_, Infallible>(())
    });
    assert_eq!(tasks.names(), ["reconciler"]);
    shutdown.trigger();
    tasks.clone().run_until_stopped(DEADLINE).await.unwrap();
    assert!(finished.load(Ordering::SeqCst));
    assert!(tasks.names().is_empty());
}

#[tokio::test]
async fn a_task_past_the_deadline_is_named_and_aborted() {
    let shutdown = Shutdown::new();
    let tasks = Tasks::new(shutdown.clone());
    tasks.spawn("stuck", pending());
    tasks.spawn("brief", async {});
    shutdown.trigger();
    let deadline = Duration::from_millis(20);
    let error = tasks.clone().run_until_stopped(deadline).await.unwrap_err();
    assert_eq!(error.to_string(), "stopped after 20ms with tasks still at work: stuck");
    assert!(tasks.names().is_empty());
}

#[tokio::test]
async fn the_second_stage_waits_for_nobody() {
    let shutdown = Shutdown::new();
    let tasks = Tasks::new(shutdown.clone());
    tasks.spawn("stuck", pending());
    shutdown.force();
    let stopped = tasks.run_until_stopped(Duration::from_hours(1));
    let error = tokio::time::timeout(DEADLINE, stopped).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Forced));
}

#[tokio::test]
async fn a_critical_task_that_ends_stops_the_node() {
    for (outcome, expected) in [
        (Ok(()), "the task \"watch\" ended: it returned although nobody asked it to stop"),
        (Err("the stream broke"), "the task \"watch\" ended: the stream broke"),
    ] {
        let tasks = Tasks::new(Shutdown::new());
        let stop = tasks.shutdown().clone();
        tasks.spawn("other", async move { stop.triggered().await });
        tasks.spawn_critical("watch", async move { outcome });
        let error = tasks.run_until_stopped(DEADLINE).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn a_panic_in_a_critical_task_stops_the_node() {
    let tasks = Tasks::new(Shutdown::new());
    tasks.spawn_critical("watch", async {
        assert!(!tasks_are_calm(), "boom");
        Ok::<_, Infallible>(())
    });
    let error = tasks.run_until_stopped(DEADLINE).await.unwrap_err();
    assert_eq!(error.to_string(), "the task \"watch\" ended: it panicked");
}

fn tasks_are_calm() -> bool {
    true
}

#[tokio::test]
async fn a_child_stops_alone_and_with_its_parent() {
    let parent = Shutdown::new();
    let (one, two) = (parent.child(), parent.child());
    one.trigger();
    assert!(one.is_triggered() && !parent.is_triggered() && !two.is_triggered());
    parent.force();
    two.forced().await;
}
