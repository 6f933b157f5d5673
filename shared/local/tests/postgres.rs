//! A private PostgreSQL server, for real.

use airfleet_local::{Keep, Postgres, Sandbox};

#[tokio::test]
async fn keeps_its_data_and_port_over_a_stop_and_a_kill() {
    let postgres =
        Postgres::options().max_connections(20).shared_buffers_mb(16).start().await.unwrap();
    let url = postgres.create_database("registry").await.unwrap();
    assert_eq!(url, postgres.url("registry"));
    postgres.query("registry", "CREATE TABLE t (v INT); INSERT INTO t VALUES (1)").await.unwrap();

    postgres.stop().await;
    assert!(!postgres.is_running().await);
    postgres.query("registry", "SELECT 1").await.expect_err("it is stopped");

    postgres.start().await.unwrap();
    assert_eq!(postgres.url("registry"), url);
    assert_eq!(
        postgres
            .query("registry", "INSERT INTO t VALUES (2); SELECT count(*) FROM t")
            .await
            .unwrap(),
        "2"
    );

    postgres.kill().await;
    assert!(!postgres.is_running().await);
    postgres.start().await.unwrap();
    assert_eq!(postgres.query("registry", "SELECT v FROM t ORDER BY v").await.unwrap(), "1\n2");
    assert_eq!(postgres.query("postgres", "SHOW max_connections").await.unwrap(), "20");
}

#[tokio::test]
async fn refuses_clients_without_the_password_and_names_that_are_none() {
    let postgres = Postgres::start_new().await.unwrap();
    let output = std::process::Command::new("psql")
        .args(["-X", "-w", "-h", "127.0.0.1", "-U", "airfleet"])
        .args(["-p", &postgres.port().to_string(), "-c", "SELECT 1"])
        .arg("postgres")
        .env("PGPASSFILE", "/dev/null")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no password supplied"));

    let error = postgres.create_database("a\"; --").await.unwrap_err();
    assert!(error.to_string().contains("is no database name"), "{error}");
}

#[tokio::test]
async fn several_run_side_by_side() {
    let (first, second) = tokio::join!(Postgres::start_new(), Postgres::start_new());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_ne!(first.port(), second.port());
    first.create_database("a").await.unwrap();
    second.create_database("a").await.unwrap();
}

#[tokio::test]
async fn continues_with_kept_data_below_a_folder_that_others_may_not_enter() {
    use std::os::unix::fs::PermissionsExt as _;
    let holder = Sandbox::create("private").await.unwrap();
    let private = holder.folder().join("home");
    std::fs::create_dir(&private).unwrap();
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o700)).unwrap();

    for expected in ["1", "2"] {
        let sandbox = Sandbox::create_at(private.join("shard"), Keep::Everything).await.unwrap();
        let postgres = Postgres::options().sandbox(&sandbox).start().await.unwrap();
        let count = postgres
            .query(
                "postgres",
                "CREATE TABLE IF NOT EXISTS t (v INT); INSERT INTO t VALUES (1);
                 SELECT count(*) FROM t",
            )
            .await
            .unwrap();
        assert_eq!(count, expected);
        postgres.stop().await;
        sandbox.close().await;
        assert!(!sandbox.has_processes());
    }
}
