//! What an agent says of moves, from a real metadata database.

use airfleet_local::AirflowVersion;
use airfleet_proto::agent::v1::{Inspect, Inspection, MoveSide};
use airfleet_runtime::config::Secret;

use crate::{
    RunningAgent,
    database::{agent_of, database, fill, query},
    eventually,
    scripted::ScriptedRouter,
};

async fn inspection(router: &ScriptedRouter, number: i64, side: MoveSide) -> Inspection {
    let question = Inspect {
        number,
        namespace: "pay".to_owned(),
        prefixes: vec!["pay__".to_owned(), "payroll.".to_owned()],
        side: side.into(),
    };
    router.inspect(&question);
    eventually("the agent answers", async || {
        router.inspections().into_iter().find(|found| found.number == number)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_tells_what_it_finds_before_a_move() {
    let shard = database(AirflowVersion::V3_3_2).await;
    fill(&shard, "small-3.3.sql").await;
    let router = ScriptedRouter::start().await;
    let mut config = agent_of(&shard, &router);
    config.airflow.dags_folder = Some("/opt/airflow/dags".to_owned());
    let list = "echo '[{\"package_name\": \"one\", \"version\": \"1.2\"}]'";
    config.airflow.providers_command = ["sh", "-c", list].map(str::to_owned).to_vec();
    config.secrets.fernet_key = Some(Secret::new("hQ1Q0cOJW0PyTvDqSGbMZAVQyAnQ2cRrxK0QHd2vHBE="));
    let agent = RunningAgent::start(config);
    router.when("the agent reports", |_| true).await;
    let installed = "SELECT to_regclass('airfleet_pause') IS NOT NULL";
    eventually("the fence is there", async || {
        (query(&shard, installed).await == "t").then_some(())
    })
    .await;

    let found = inspection(&router, 1, MoveSide::Source).await;
    assert_eq!((found.namespace.as_str(), found.side()), ("pay", MoveSide::Source));
    assert_eq!(found.database, "postgresql");
    assert_eq!(found.dags_folder, "/opt/airflow/dags");
    assert_eq!(found.providers.get("one").map(String::as_str), Some("1.2"));
    assert_eq!(found.fernet_digest.len(), 32);
    assert_eq!(found.not_understood, [] as [&str; 0]);
    assert_eq!(found.obstacles, [] as [&str; 0]);
    assert!(found.dags > 0 && found.task_instances > 0, "{found:?}");
    let other = inspection(&router, 2, MoveSide::Target).await;
    assert_eq!(other.schema_digest, found.schema_digest);
    assert_eq!(other.pools.iter().filter(|pool| *pool == "default_pool").count(), 1);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_a_database_says_that_it_cannot_move_anything() {
    let router = ScriptedRouter::start().await;
    let agent = RunningAgent::start(router.agent());
    router.when("the agent reports", |_| true).await;
    let found = inspection(&router, 1, MoveSide::Source).await;
    assert_eq!(found.obstacles, ["the agent has no airflow.metadata_url"]);
    agent.stop().await;
}
