//! Boots an Airflow shard, says where it is, and runs it until Ctrl-C:
//! `cargo run -p airfleet-local --example boot_shard -- [NAME]`.

use airfleet_local::AirflowShard;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "east".to_owned());
    let shard =
        AirflowShard::builder(name).on_progress(|progress| println!("{progress}")).boot().await?;
    println!("api       {}", shard.api_url());
    println!("login     {:?}", shard.admin());
    println!("metadata  {}", shard.metadata_url());
    println!("broker    {:?}", shard.broker_url());
    println!("dags      {}", shard.dags_folder().display());
    println!("Ctrl-C ends it");
    tokio::signal::ctrl_c().await?;
    shard.stop().await;
    Ok(())
}
