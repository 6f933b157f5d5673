//! Runs the real services that a fleet stands on, on this machine: PostgreSQL,
//! Redis, RabbitMQ, Prometheus and whole Airflow shards, for `airfleet dev`, the
//! demonstration, tests and benchmarks. Linux only.
//!
//! Everything runs inside a [`Sandbox`]: a folder whose processes and files end
//! with the process that owns it, also when that is killed. Services listen on
//! 127.0.0.1, on ports that stay theirs while they are stopped, and can be
//! stopped, killed and started again to show what happens to their users.
//!
//! Must not know registry, router, agent or any other part of Airfleet.

mod airflow;
mod error;
mod object_store;
mod port;
mod postgres;
mod process;
mod procfs;
mod programs;
mod prometheus;
mod rabbitmq;
mod redis;
mod sandbox;
mod service;
mod wait;

pub use airflow::{
    AirflowShard, AirflowShardBuilder, AirflowVersion, Component, DAGS_FOLDER, Environment, Health,
    Progress, Stack,
};
pub use error::{Error, Result};
pub use object_store::ObjectStore;
pub use port::Port;
pub use postgres::{Postgres, PostgresOptions};
pub use process::{Process, Spec};
pub use programs::cache_folder;
pub use prometheus::Prometheus;
pub use rabbitmq::{RabbitMq, RabbitMqOptions};
pub use redis::Redis;
pub use sandbox::{Keep, Sandbox};

#[cfg(test)]
mod tests {
    use super::*;

    /// Callers start services in spawned tasks and share them between threads.
    #[test]
    fn services_can_be_started_and_used_from_any_task() {
        fn sendable<T: Send>(_: &T) {}
        fn shareable<T: Send + Sync>() {}
        shareable::<AirflowShard>();
        shareable::<Postgres>();
        shareable::<RabbitMq>();
        sendable(&AirflowShard::builder("east").boot());
        sendable(&Postgres::start_new());
        sendable(&Redis::start_new());
        sendable(&RabbitMq::start_new());
        sendable(&Prometheus::start_new(""));
        sendable(&ObjectStore::start_new("any"));
        sendable(&Sandbox::create("any"));
    }
}
