//! Moves between two real Airflows, there and back, while a namespace of six kinds of DAG runs,
//! neighbours run on both shards, users trigger runs and pause DAGs, and things break.
//!
//! [`Soak`] drives and breaks; it keeps no account of what should be. What came of it is read from
//! both metadata databases and from lines that tasks leave outside of Airflow, and judged by
//! [`checker`].

pub mod checker;
mod evidence;
pub mod fault;
mod strike;
mod user;

use std::{
    fs,
    io::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use airfleet_proto::{
    moves::v1::{
        GetMoveRequest, Move, MovePhase, StartMoveRequest, move_service_client::MoveServiceClient,
    },
    placement::v1::{
        ApplyPlanRequest, CreatePlanRequest, GetPlanRequest, PlanState,
        create_plan_request::Purpose, placement_service_client::PlacementServiceClient,
    },
    registry::v1::Namespace,
    router::v1::{
        AssignmentState, UncordonShardRequest, router_service_client::RouterServiceClient,
    },
};
use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use tempfile::TempPath;
use tokio::{task::JoinHandle, time::interval};
use tonic::transport::Channel;

pub use self::user::Refusals;
use self::{
    checker::{Effect, Evidence, Finding},
    fault::Fault,
    user::{User, resolve},
};
use crate::{
    eventually,
    shard::{Fleet, FleetOptions, LIMIT, Shard},
};

const NAMESPACE: &str = "pay";
const DAGS: &str = include_str!("dags.py");

/// Two shards.
const SHARDS: [&str; 2] = ["shard-a", "shard-b"];

/// A move may take so long, faults and all.
const MOVE_LIMIT: Duration = Duration::from_mins(8);

/// A neighbour: it stays where it is, and has a tick each minute.
const NEIGHBOUR: &str = r#"
import pendulum
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.timetables.trigger import CronTriggerTimetable

with DAG("NAME.minutely", schedule=CronTriggerTimetable("* * * * *", timezone="UTC"), catchup=True,
         start_date=pendulum.from_timestamp(AT), is_paused_upon_creation=False):
    EmptyOperator(task_id="nothing")
"#;

/// DAGs of the namespace that a scheduler would make runs of.
const RUNNING: &str =
    "SELECT count(*) FROM dag WHERE starts_with(dag_id, 'pay.') AND NOT is_paused AND NOT is_stale";

/// Two Airflows, and a namespace that moves between them.
pub struct Soak {
    fleet: Fleet,
    /// DAGs that the namespace has. Count.
    dags: usize,
    effects: TempPath,
    /// Runs that were asked for and taken on.
    asked: Arc<Mutex<Vec<(String, String)>>>,
    /// Why users were refused for now.
    refusals: Arc<Mutex<Refusals>>,
    /// Whether users are to go on asking.
    asking: Arc<AtomicBool>,
    user: Option<JoinHandle<()>>,
    /// The router that runs.
    leader: usize,
    begun: Instant,
    /// Whether Airflow may have had to execute something again.
    may_repeat: bool,
}

/// What came of a move.
#[derive(Debug, Clone)]
pub struct Moved {
    /// As it was last told.
    pub last: Move,
    /// From the first word to the last.
    pub took: Duration,
    /// From the start of each phase to the start of the next, as the router tells it.
    pub phases: Vec<(MovePhase, Duration)>,
    /// What broke, in which phase it then was.
    pub struck: Option<MovePhase>,
}

impl Moved {
    /// From the end of the drain until the target runs the namespace, as the router sees it: a little
    /// more than for how long nobody could make runs, beyond the drain.
    pub fn beyond_drain(&self) -> Duration {
        let dark =
            [MovePhase::Sealing, MovePhase::Copying, MovePhase::Flipped, MovePhase::Activating];
        self.phases.iter().filter(|(phase, _)| dark.contains(phase)).map(|(_, took)| *took).sum()
    }
}

impl Soak {
    /// A fleet under load: the namespace with its six kinds of DAG, of which the long one has a task
    /// that takes `long_task`, its neighbours, and somebody who triggers runs.
    pub async fn boot(long_task: Duration) -> Result<Self> {
        let mut soak = Self::quiet().await?;
        let at = Timestamp::now().as_second() / 60 * 60;
        for (namespace, shard) in [("near-a", SHARDS[0]), ("near-b", SHARDS[1])] {
            let text = NEIGHBOUR.replace("NAME", namespace).replace("AT", &at.to_string());
            soak.fleet.write(namespace, "near.py", &text)?;
            soak.fleet.create(soak.fleet.namespace(namespace, shard)?).await?;
        }
        let text = DAGS
            .replace("(AT)", &format!("({at})"))
            .replace("SECONDS", &long_task.as_secs().to_string());
        soak.deliver(&text, 6).await?;
        let runs = "SELECT count(DISTINCT dag_id) >= 3 FROM dag_run \
                    WHERE starts_with(dag_id, 'pay.') AND state = 'success'";
        soak.shard(soak.owner().await?).airflow.finds(runs, "t").await?;
        soak.user = Some(tokio::spawn(soak.user().ask()));
        soak.say("both shards run, and the namespace on one of them");
        Ok(soak)
    }

    /// Two Airflows below a control plane, on which nothing runs.
    pub async fn quiet() -> Result<Self> {
        let begun = Instant::now();
        let effects = tempfile::NamedTempFile::new()?.into_temp_path();
        let options = FleetOptions {
            shards: SHARDS.to_vec(),
            absent: vec![],
            routers: 2,
            environment: vec![
                ("SOAK_EFFECTS", effects.display().to_string()),
                // A task over which a scheduler was killed, after it noted that it is queued and
                // before it told Celery, is another's only after the first of these, five minutes
                // unless told, and is made anew after the second, ten. A drain waits for that.
                ("AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL", "60".to_owned()),
                ("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "180".to_owned()),
                ("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL", "15".to_owned()),
            ],
            // A machine with two cores and two Airflows is late now and then.
            agents: [
                ("thresholds.lateness_max", "1h"),
                ("thresholds.scheduling_delay_p95", "1h"),
                ("thresholds.scheduler_heartbeat_age", "5m"),
                ("thresholds.dag_processor_heartbeat_age", "5m"),
            ]
            .map(|(key, value)| (key, value.to_owned()))
            .to_vec(),
            ..FleetOptions::default()
        };
        let fleet = Fleet::boot(&options).await?;
        Ok(Self {
            fleet,
            dags: 0,
            effects,
            asked: Arc::default(),
            refusals: Arc::default(),
            asking: Arc::new(AtomicBool::new(true)),
            user: None,
            leader: 0,
            begun,
            may_repeat: false,
        })
    }

    /// Tells what happened, and when.
    pub fn say(&self, what: &str) {
        println!("{:7.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    /// Registers the namespace with a file that has so many DAGs, all of which run, and waits until
    /// they do on one of the shards.
    pub async fn deliver(&mut self, text: &str, dags: usize) -> Result<()> {
        self.dags = dags;
        self.fleet.write(NAMESPACE, "dags.py", text)?;
        let anywhere = Namespace { placement: None, ..self.fleet.namespace(NAMESPACE, "")? };
        self.fleet.create(anywhere).await?;
        let owner = eventually(LIMIT, async || self.owner().await).await?;
        self.shard(owner).airflow.finds(RUNNING, &dags.to_string()).await
    }

    fn shard(&self, number: usize) -> &Shard {
        &self.fleet.shards[number]
    }

    fn channels(&self) -> Vec<Channel> {
        self.fleet.routers.iter().map(crate::process::Service::channel).collect()
    }

    fn user(&self) -> User {
        User {
            routers: self.channels(),
            asked: self.asked.clone(),
            refusals: self.refusals.clone(),
            asking: self.asking.clone(),
        }
    }

    /// The shard that has the namespace and runs it.
    pub async fn owner(&self) -> Result<usize> {
        let found = resolve(&self.channels(), NAMESPACE).await?;
        ensure!(found.state() == AssignmentState::Assigned, "{NAMESPACE} is {:?}", found.state());
        number_of(&found.shard)
    }

    async fn get(&self, id: &str) -> Result<Move> {
        let ask = GetMoveRequest { name: id.to_owned() };
        first_answer(&self.channels(), |channel| {
            let ask = ask.clone();
            async move { MoveServiceClient::new(channel).get_move(ask).await }
        })
        .await
    }

    async fn start(&self, target: usize, key: &str) -> Result<Move> {
        let request = StartMoveRequest {
            namespace: NAMESPACE.to_owned(),
            target_shard: SHARDS[target].to_owned(),
            reason: "soak".to_owned(),
            // Asked again, it is the same move.
            request_id: key.to_owned(),
            ..StartMoveRequest::default()
        };
        eventually(LIMIT, async || {
            self.keep_airflows().await?;
            let routers = self.channels();
            let started = first_answer(&routers, |channel| {
                let request = request.clone();
                async move { MoveServiceClient::new(channel).start_move(request).await }
            });
            started.await?.r#move.context("a move that is no move")
        })
        .await
    }

    /// Moves the namespace to the shard that does not have it, and breaks something meanwhile.
    pub async fn move_over(&mut self, fault: Option<Fault>) -> Result<Moved> {
        let source = eventually(LIMIT, async || self.owner().await).await?;
        let target = 1 - source;
        if let Some(fault) = fault {
            self.prepare(fault).await?;
        }
        let began = Instant::now();
        let key = format!("soak-{}", self.begun.elapsed().as_nanos());
        let mut last = self.start(target, &key).await?;
        let mut starts = vec![];
        let mut struck = None;
        let mut looks = interval(Duration::from_millis(10));
        let mut kept = Instant::now();
        loop {
            if starts.last().is_none_or(|(phase, _)| *phase != last.phase()) {
                starts.push((last.phase(), timestamp(last.phase_time.as_ref())?));
            }
            if let Some(fault) = fault.filter(|_| struck.is_none())
                && self.is_time(fault, &last, [source, target]).await
            {
                struck = Some(last.phase());
                self.strike(fault.victim, [source, target]).await?;
            }
            if matches!(last.phase(), MovePhase::Done | MovePhase::Aborted) {
                break;
            }
            ensure!(
                began.elapsed() < MOVE_LIMIT,
                "not over within {MOVE_LIMIT:?}: {last:#?}\n{}",
                self.logs()
            );
            if kept.elapsed() > Duration::from_secs(1) {
                self.keep_airflows().await?;
                kept = Instant::now();
            }
            looks.tick().await;
            if let Ok(found) = self.get(&last.id).await {
                last = found;
            }
        }
        self.keep_airflows().await?;
        if let Some(fault) = fault {
            self.may_repeat |= fault.may_repeat();
        }
        let phases = starts.windows(2).map(|two| {
            let took = two[1].1.duration_since(two[0].1);
            (two[0].0, Duration::try_from(took).unwrap_or_default())
        });
        let moved = Moved { phases: phases.collect(), took: began.elapsed(), last, struck };
        self.tell(&moved, fault);
        self.hold_to(&moved, fault, [source, target]).await?;
        Ok(moved)
    }

    fn tell(&self, moved: &Moved, fault: Option<Fault>) {
        let Moved { last, took, .. } = moved;
        let phases: Vec<_> = moved
            .phases
            .iter()
            .map(|(phase, took)| format!("{} {:.1}", short(*phase), took.as_secs_f64()))
            .collect();
        let fault = fault.map_or_else(String::new, |fault| {
            let at = moved.struck.map_or("never", short);
            format!("; {fault} (in {at})")
        });
        let failed = last.last_error.as_ref();
        let failed = failed.map_or_else(String::new, |error| format!("; {}", error.code));
        self.say(&format!(
            "{} -> {} {} in {:.1} s, no runs for {:.1} s ({}){fault}{failed}",
            last.source_shard,
            last.target_shard,
            short(last.phase()),
            took.as_secs_f64(),
            last.blackout_ms as f64 / 1e3,
            phases.join(", "),
        ));
    }

    /// What holds after every move, whatever broke.
    async fn hold_to(
        &self,
        moved: &Moved,
        fault: Option<Fault>,
        [source, target]: [usize; 2],
    ) -> Result<()> {
        let last = &moved.last;
        if last.phase() == MovePhase::Aborted {
            ensure!(fault.is_some(), "given up though nothing broke: {last:#?}\n{}", self.logs());
            ensure!(last.flip_time.is_none(), "given up after the flip: {last:#?}");
        } else {
            let proof = last.proof.as_ref().context("no proof")?;
            ensure!(proof.differing == 0, "{proof:#?}");
        }
        let owner = if last.phase() == MovePhase::Done { target } else { source };
        let found = eventually(LIMIT, async || self.owner().await).await?;
        ensure!(found == owner, "{} has it, not {}", SHARDS[found], SHARDS[owner]);
        // Whoever does not have it cannot run it; whoever has it does.
        self.is_run_by(owner).await
    }

    /// Waits until a shard runs the namespace, and makes sure that the other one cannot.
    async fn is_run_by(&self, owner: usize) -> Result<()> {
        let finds = async |shard: usize, sql: &str, wanted: &str| {
            eventually(LIMIT, async || {
                // What broke may have ended Airflow's processes long after it did.
                self.keep_airflows().await?;
                let found = self.shard(shard).airflow.sql(sql).await?;
                ensure!(found == wanted, "{}: {sql}: {found:?}, not {wanted:?}", SHARDS[shard]);
                anyhow::Ok(())
            })
            .await
        };
        finds(1 - owner, RUNNING, "0").await?;
        finds(owner, RUNNING, &self.dags.to_string()).await?;
        if self.user.is_some() {
            let now_us = Timestamp::now().as_microsecond();
            let ended = format!(
                "SELECT count(*) > 0 FROM dag_run WHERE starts_with(dag_id, 'pay.') \
                 AND state = 'success' AND end_date > to_timestamp({now_us} / 1e6)"
            );
            finds(owner, &ended, "t").await?;
        }
        Ok(())
    }

    /// Empties the shard that has the namespace by a plan: its neighbour is bound to the shard and
    /// stays, the namespace goes.
    pub async fn drain_by_plan(&self) -> Result<()> {
        let source = self.owner().await?;
        let target = 1 - source;
        let purpose = Some(Purpose::DrainShard(SHARDS[source].to_owned()));
        let request = CreatePlanRequest { purpose, ..CreatePlanRequest::default() };
        let plan = first_answer(&self.channels(), |channel| {
            let request = request.clone();
            async move { PlacementServiceClient::new(channel).create_plan(request).await }
        })
        .await?;
        let moves: Vec<_> = plan.moves.iter().map(|one| (&*one.namespace, &*one.to)).collect();
        ensure!(moves == [(NAMESPACE, SHARDS[target])], "{plan:#?}");
        let (name, expected_hash) = (plan.name.clone(), plan.hash.clone());
        let request = ApplyPlanRequest { name, expected_hash, validate_only: false };
        first_answer(&self.channels(), |channel| {
            let request = request.clone();
            async move { PlacementServiceClient::new(channel).apply_plan(request).await }
        })
        .await?;
        let ask = GetPlanRequest { name: plan.name, ..GetPlanRequest::default() };
        eventually(MOVE_LIMIT, async || {
            let routers = self.channels();
            let plan = first_answer(&routers, |channel| {
                let ask = ask.clone();
                async move { PlacementServiceClient::new(channel).get_plan(ask).await }
            });
            let plan = plan.await?;
            ensure!(plan.state() == PlanState::Done, "{plan:#?}");
            anyhow::Ok(())
        })
        .await?;
        ensure!(self.owner().await? == target, "the plan is done, and the namespace is elsewhere");
        self.is_run_by(target).await?;
        self.say(&format!("{} drained by a plan", SHARDS[source]));
        // Nothing is to come back to a shard that was drained until somebody says so.
        let request = UncordonShardRequest { shard: SHARDS[source].to_owned() };
        first_answer(&self.channels(), |channel| {
            let request = request.clone();
            async move { RouterServiceClient::new(channel).uncordon_shard(request).await }
        })
        .await?;
        Ok(())
    }

    /// What must not be, and is.
    pub fn judge(&self, evidence: &Evidence) -> Vec<Finding> {
        let excused =
            |found: &Finding| self.may_repeat && matches!(found, Finding::Repeated { .. });
        checker::check(evidence).into_iter().filter(|found| !excused(found)).collect()
    }

    /// Why users were refused for now, and how often.
    pub fn refusals(&self) -> Refusals {
        self.refusals.lock().expect("nobody panics").clone()
    }

    /// Runs SQL in the metadata database of a shard.
    pub async fn sql(&self, number: usize, sql: &str) -> Result<String> {
        self.shard(number).airflow.sql(sql).await
    }

    /// Puts a line to those that tasks leave.
    pub fn plant(&self, effect: &Effect) -> Result<()> {
        let mut file = fs::OpenOptions::new().append(true).open(&self.effects)?;
        Ok(writeln!(file, "{}", effect.line())?)
    }

    /// Stops everything.
    pub async fn stop(mut self) {
        self.asking.store(false, Ordering::SeqCst);
        if let Some(user) = self.user.take() {
            user.abort();
        }
        self.fleet.stop().await;
    }

    fn logs(&self) -> String {
        let tail = |what: &str, output: String| {
            let lines: Vec<_> = output.lines().collect();
            format!("--- {what}\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        let routers = self.fleet.routers.iter().map(|router| tail("router", router.output()));
        let agents = self.fleet.shards.iter();
        let agents = agents.map(|shard| tail(shard.name(), shard.agent.output()));
        routers.chain(agents).collect()
    }

    /// What a supervisor does where Airflow runs: whatever ended is started again.
    async fn keep_airflows(&self) -> Result<()> {
        for shard in &self.fleet.shards {
            let airflow = &shard.airflow.shard;
            for component in airflow.components().collect::<Vec<_>>() {
                if !airflow.is_running(component).await {
                    airflow.start_component(component).await?;
                }
            }
        }
        Ok(())
    }
}

/// Asks each router in turn; what one answers counts.
async fn first_answer<T, F>(routers: &[Channel], ask: impl Fn(Channel) -> F) -> Result<T>
where
    F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let mut refused = vec![];
    for channel in routers {
        match ask(channel.clone()).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => refused.push(format!("{:?}: {}", status.code(), status.message())),
        }
    }
    bail!("no router answers: {}", refused.join("; "))
}

fn timestamp(time: Option<&prost_types::Timestamp>) -> Result<Timestamp> {
    let time = time.context("no time")?;
    Ok(Timestamp::new(time.seconds, time.nanos)?)
}

fn short(phase: MovePhase) -> &'static str {
    phase.as_str_name().trim_start_matches("MOVE_PHASE_")
}

fn number_of(shard: &str) -> Result<usize> {
    SHARDS.iter().position(|name| *name == shard).with_context(|| format!("no shard {shard:?}"))
}
