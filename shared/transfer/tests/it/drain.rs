//! What runs, and what is set back.

use airfleet_domain::roles::Role;
use airfleet_transfer::drain;

use crate::ends::{Server, place, scope};

#[tokio::test]
async fn what_runs_is_waited_for_and_what_was_about_to_run_goes_along_with_its_tries() {
    let server = Server::start().await;
    let end = server.end("source").await;
    let scope = scope(&["pay__"]);
    server.fill(&end, "pay__", [2, 4, 6]).await;
    server.fill(&end, "paz", [1, 4, 6]).await;
    server.query(&end, "UPDATE task_instance SET state = 'running' WHERE dag_id = 'pay__d1' AND run_id = 'scheduled__1' AND task_id = 't1'; \
        UPDATE task_instance SET state = 'queued', try_number = 2 WHERE dag_id = 'pay__d1' AND run_id = 'scheduled__2' AND task_id = 't1'; \
        UPDATE task_instance SET state = 'deferred' WHERE dag_id = 'pay__d1' AND run_id = 'scheduled__2' AND task_id = 't2'; \
        UPDATE task_instance SET state = 'scheduled', try_number = 2 WHERE dag_id = 'pay__d1' AND run_id = 'scheduled__3' AND task_id = 't2'; \
        INSERT INTO task_reschedule (ti_id, start_date, end_date, duration, reschedule_date) \
          SELECT id, now(), now(), 1, now() FROM task_instance \
          WHERE dag_id = 'pay__d1' AND run_id = 'scheduled__3' AND task_id = 't2'; \
        INSERT INTO job (job_type, state, latest_heartbeat) VALUES ('SchedulerJob', 'running', now())").await;
    let catalog = end.catalog().await;
    let look = drain::look(&end.database, &catalog, &scope).await.unwrap();
    let found = (
        look.drain.running,
        look.drain.queued,
        look.drain.deferred,
        look.scheduled,
        look.up_for_retry,
    );
    assert_eq!(found, (1, 1, 1, 4, 4));

    let mut connection = end.connection().await;
    let code = drain::reset(&mut connection, &catalog, &scope, place(4)).await.unwrap_err().code();
    assert_eq!(code, "NOT_IN_ROLE");
    end.be(&scope, Role::Sealed, 4).await;
    let code = drain::reset(&mut connection, &catalog, &scope, place(4)).await.unwrap_err().code();
    assert_eq!(code, "NOT_DRAINED");
    server
        .query(
            &end,
            "UPDATE task_instance SET state = 'success' WHERE state IN ('running', 'deferred')",
        )
        .await;
    let code = drain::reset(&mut connection, &catalog, &scope, place(3)).await.unwrap_err().code();
    assert_eq!(code, "ORDER_OVERTAKEN");
    assert_eq!(drain::reset(&mut connection, &catalog, &scope, place(4)).await.unwrap(), 5);
    assert_eq!(drain::reset(&mut connection, &catalog, &scope, place(4)).await.unwrap(), 0);
    let set = "SELECT coalesce(state, 'none'), try_number, queued_dttm IS NULL, scheduled_dttm IS NULL FROM task_instance \
        WHERE dag_id = 'pay__d1' AND (run_id, task_id) IN (('scheduled__2', 't1'), ('scheduled__3', 't2')) ORDER BY run_id";
    assert_eq!(server.query(&end, set).await, "none\t1\tt\tt\nup_for_reschedule\t2\tt\tt");
    let others = "SELECT count(*) FROM task_instance WHERE starts_with(dag_id, 'paz') AND state = 'scheduled'";
    assert_eq!(server.query(&end, others).await, "2");
}

#[tokio::test]
async fn nothing_is_confirmed_before_a_scheduler_went_round() {
    let server = Server::start().await;
    let end = server.end("source").await;
    let scope = scope(&["pay__"]);
    let catalog = end.catalog().await;
    let look = async || drain::look(&end.database, &catalog, &scope).await.unwrap();
    server
        .query(
            &end,
            "INSERT INTO job (job_type, state, latest_heartbeat) VALUES \
        ('SchedulerJob', 'running', now()), ('SchedulerJob', 'running', now())",
        )
        .await;
    let first = look().await;
    let second = look().await;
    assert!(!second.confirms(&first), "no scheduler has beaten since");
    assert!(!first.confirms(&first), "one look proves nothing");
    let one = "UPDATE job SET latest_heartbeat = now() WHERE id = (SELECT min(id) FROM job)";
    server.query(&end, one).await;
    assert!(!look().await.confirms(&first), "the other one has not beaten since");
    server.query(&end, "UPDATE job SET latest_heartbeat = now()").await;
    assert!(look().await.confirms(&first));
    let dead = "UPDATE job SET latest_heartbeat = now() - interval '10 minutes'";
    server.query(&end, &format!("{dead} WHERE id > (SELECT min(id) FROM job)")).await;
    assert!(look().await.confirms(&first), "a scheduler that is dead queues nothing");
    server.query(&end, dead).await;
    assert!(look().await.confirms(&first), "nobody queues anything");
    server.fill(&end, "pay__", [1, 3, 3]).await;
    server.query(&end, "UPDATE task_instance SET state = 'queued' WHERE task_id = 't1'").await;
    assert!(!look().await.confirms(&first));
}

#[tokio::test]
async fn runs_that_a_scheduler_would_end_although_they_are_paused_are_held() {
    let server = Server::start().await;
    let end = server.end("source").await;
    let scope = scope(&["pay__"]);
    server.fill(&end, "pay__", [2, 4, 2]).await;
    server.fill(&end, "paz", [1, 4, 2]).await;
    let decide = "UPDATE dag_run SET last_scheduling_decision = now() - interval '1 minute'; \
        UPDATE task_instance SET state = 'success', updated_at = now()";
    server.query(&end, decide).await;
    // As Airflow's scheduler looks for them.
    let ended = "SELECT count(*) FROM (SELECT r.id FROM dag_run r JOIN task_instance t \
          ON (t.dag_id, t.run_id) = (r.dag_id, r.run_id) \
          WHERE starts_with(r.dag_id, 'PREFIX') AND r.state = 'running' GROUP BY r.id \
          HAVING r.last_scheduling_decision <= max(t.updated_at)) s";
    let of = async |prefix: &str| server.query(&end, &ended.replace("PREFIX", prefix)).await;
    assert_eq!((of("pay__").await, of("paz").await), ("4".to_owned(), "2".to_owned()));

    let catalog = end.catalog().await;
    let look = async || drain::look(&end.database, &catalog, &scope).await.unwrap();
    let first = look().await;
    assert_eq!((first.drain.is_idle(), first.is_quiet(), first.decided), (true, false, 4));
    assert!(!look().await.confirms(&first), "no scheduler lives, but one might come");
    let mut connection = end.connection().await;
    let code = drain::hold(&mut connection, &catalog, &scope, place(4)).await.unwrap_err().code();
    assert_eq!(code, "NOT_IN_ROLE");
    end.be(&scope, Role::Quiesced, 4).await;
    assert_eq!(drain::hold(&mut connection, &catalog, &scope, place(4)).await.unwrap(), 4);
    assert_eq!(drain::hold(&mut connection, &catalog, &scope, place(4)).await.unwrap(), 0);
    assert_eq!((of("pay__").await, of("paz").await), ("0".to_owned(), "2".to_owned()));
    let first = look().await;
    assert!(first.is_quiet() && look().await.confirms(&first));
}
