//! Breaking things.

use std::time::Duration;

use airfleet_domain::moves::Side;
use airfleet_local::Component;
use airfleet_proto::{
    moves::v1::{Move, MovePhase},
    router::v1::{GetRouterStatusRequest, router_service_client::RouterServiceClient},
};
use anyhow::{Context as _, Result, bail};
use tokio::time::sleep;

use super::{
    NAMESPACE, Soak,
    fault::{Fault, Moment, Victim},
};
use crate::link::Link;

/// How long a link stays cut: longer than an agent that hears nothing waits, so it comes again.
const CUT: Duration = Duration::from_secs(20);

/// How long a database stays away.
const AWAY: Duration = Duration::from_secs(2);

impl Soak {
    /// What has to be so before the move begins.
    pub(super) async fn prepare(&mut self, fault: Fault) -> Result<()> {
        match fault.victim {
            Victim::Leader => {
                let other = 1 - self.leader;
                self.fleet.routers[other].start().await
            }
            Victim::Link(_) => {
                // An agent that was told of a leader goes there by itself; only one that begins
                // anew takes its link.
                for shard in &mut self.fleet.shards {
                    shard.agent.kill().await;
                    shard.agent.start().await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether it is time to break something.
    pub(super) async fn is_time(&self, fault: Fault, now: &Move, ends: [usize; 2]) -> bool {
        if now.phase() > fault.phase {
            return true;
        }
        now.phase() == fault.phase
            && (fault.moment == Moment::Before || self.has_effect(fault.phase, ends).await)
    }

    /// Whether a metadata database shows what a phase is for.
    async fn has_effect(&self, phase: MovePhase, [source, target]: [usize; 2]) -> bool {
        let reached = async |shard: usize, role: &str| {
            let sql = format!(
                "SELECT count(*) FROM airfleet_role \
                 WHERE namespace = '{NAMESPACE}' AND role = '{role}' AND reached_role = '{role}'"
            );
            matches!(self.shard(shard).airflow.sql(&sql).await.as_deref(), Ok("1"))
        };
        match phase {
            MovePhase::Staging => reached(target, "staged").await,
            MovePhase::Quiescing => reached(source, "quiesced").await,
            MovePhase::Sealing => reached(source, "sealed").await,
            MovePhase::Copying => self.has_copied(target).await.unwrap_or(false),
            MovePhase::Activating => reached(target, "active").await,
            MovePhase::Retiring => reached(source, "retired").await,
            _ => true,
        }
    }

    async fn has_copied(&self, target: usize) -> Result<bool> {
        let airflow = &self.shard(target).airflow;
        let schemas =
            "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'airfleet_move_')";
        for schema in airflow.sql(schemas).await?.lines() {
            let installed =
                format!("SELECT count(*) FROM {schema}.airfleet_result WHERE part = 'rest'");
            if airflow.sql(&installed).await? != "0" {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Breaks it.
    pub(super) async fn strike(&mut self, victim: Victim, ends: [usize; 2]) -> Result<()> {
        let at = |side: Side| match side {
            Side::Source => ends[0],
            Side::Target => ends[1],
        };
        match victim {
            Victim::Router => {
                let router = &mut self.fleet.routers[self.leader];
                router.kill().await;
                router.launch()
            }
            Victim::Leader => {
                self.leader = self.leads().await?;
                self.fleet.routers[self.leader].kill().await;
                self.leader = 1 - self.leader;
                Ok(())
            }
            Victim::Agent(side) => {
                let agent = &mut self.fleet.shards[at(side)].agent;
                agent.kill().await;
                agent.launch()
            }
            Victim::Database(side) => {
                let airflow = &self.shard(at(side)).airflow.shard;
                let postgres = airflow.postgres().context("no PostgreSQL")?;
                postgres.kill().await;
                sleep(AWAY).await;
                Ok(postgres.start().await?)
            }
            Victim::Scheduler(side) => {
                let airflow = &self.shard(at(side)).airflow.shard;
                airflow.kill_component(Component::Scheduler).await?;
                Ok(airflow.start_component(Component::Scheduler).await?)
            }
            Victim::Link(side) => {
                let links = &self.shard(at(side)).links;
                links.iter().for_each(Link::cut);
                sleep(CUT).await;
                links.iter().for_each(Link::mend);
                Ok(())
            }
        }
    }

    /// The router that leads.
    async fn leads(&self) -> Result<usize> {
        for (number, channel) in self.channels().into_iter().enumerate() {
            let asked = RouterServiceClient::new(channel)
                .get_router_status(GetRouterStatusRequest::default())
                .await;
            if asked.is_ok_and(|status| status.into_inner().leader) {
                return Ok(number);
            }
        }
        bail!("no router leads")
    }
}
