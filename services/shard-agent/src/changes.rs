//! Changes that users ask the router for, made on this shard.
//!
//! Responsible for making them one after the other, a few at a time, and for answering each. It must
//! not know how Airflow is asked.
//!
//! # What holds
//! - A change is made only while the shard is ACTIVE for the namespace at the generation that the
//!   router named, and the namespace stays so until the change is made: its row in the fence is held,
//!   in the metadata database, until Airflow has answered. Whoever quiesces or seals it waits for
//!   that, also where it is another agent of the same shard. So what is told as done was there before
//!   the namespace was given up, and went along.
//! - Killed meanwhile, the agent answers nothing and its hold is gone; Airflow may still be making
//!   the change. A drain is confirmed only after two heartbeats of the scheduler, which is longer
//!   than that takes.
//! - Done twice: a run has its id, a pause state is what it is, and clearing what runs again already
//!   is told to be in doubt rather than repeated. Done late: nobody waits, and nothing is begun.
//! - At most [`AT_ONCE`] are made at once and [`WAITING_MAX`] wait; who comes beyond is told so.

use std::{convert::Infallible, sync::Arc, time::Duration};

use airfleet_domain::{
    dags::{Ask, Change, Done, Failure, Outcome, Trouble},
    roles::{Desired, Role},
};
use airfleet_proto::{agent::v1 as wire, convert::dags as convert};
use airfleet_runtime::lifecycle::Shutdown;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    airflow::{
        self,
        fence::gate,
        metadata::{self, Metadata, Transaction},
        rest::Rest,
    },
    config::AirflowConfig,
    link::{Orders, Outbox},
    words::chain,
};

/// Changes at once: as many as there are connections to hold the namespace by.
const AT_ONCE: usize = 4;

/// Changes that wait.
const WAITING_MAX: usize = 100;

/// Longest that anybody waits for a change.
const PATIENCE_MAX: Duration = Duration::from_mins(2);

/// Takes changes in. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Changes {
    sender: mpsc::Sender<Asked>,
    outbox: Outbox,
}

/// A change, and the stream on which a router waits for the answer.
#[derive(Debug)]
struct Asked {
    number: i64,
    ask: Ask,
    until: Instant,
    stream: u64,
}

/// Changes that wait to be made.
pub(crate) struct Waiting(mpsc::Receiver<Asked>);

/// What makes them.
pub(crate) struct Maker {
    /// None where nothing is fenced, and so nothing moved.
    metadata: Option<Metadata>,
    /// None where the agent was not told how to log in.
    rest: Option<Rest>,
    /// Time for all that Airflow is asked for one change.
    limit: Duration,
    orders: watch::Receiver<Arc<Orders>>,
}

impl Changes {
    /// Nothing is asked yet.
    pub(crate) fn new(outbox: Outbox) -> (Self, Waiting) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self { sender, outbox }, Waiting(receiver))
    }

    /// A router asks on this stream.
    pub(crate) fn ask(&self, wire: wire::DagChange, stream: u64) {
        let number = wire.number;
        let patience = Duration::from_millis(u64::try_from(wire.patience_ms).unwrap_or_default());
        let until = Instant::now() + patience.min(PATIENCE_MAX);
        let answer = |trouble, why: &str| {
            let failure = Failure::new(trouble, why);
            self.outbox.put_change(convert::result(number, Err(failure)), stream);
        };
        let Some(ask) = convert::ask(wire) else {
            let why = "the agent does not know how to do that; upgrade it";
            return answer(Trouble::NotSetUp, why);
        };
        if self.sender.try_send(Asked { number, ask, until, stream }).is_err() {
            answer(Trouble::Busy, &format!("{WAITING_MAX} changes wait already"));
        }
    }
}

/// Makes changes until shutdown.
pub(crate) async fn keep_changing(
    maker: Maker,
    mut waiting: Waiting,
    outbox: Outbox,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    let maker = Arc::new(maker);
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = tasks.join_next() => {}
            Some(asked) = waiting.0.recv(), if tasks.len() < AT_ONCE => {
                let (maker, outbox) = (maker.clone(), outbox.clone());
                tasks.spawn(async move {
                    let Asked { number, ask, until, stream } = asked;
                    let outcome = maker.make_in_time(&ask, until).await;
                    tell(&ask, &outcome);
                    outbox.put_change(convert::result(number, outcome), stream);
                });
            }
            () = shutdown.triggered() => {
                // What was begun ends; it is bounded by the time that Airflow is given.
                while tasks.join_next().await.is_some() {}
                return Ok(());
            }
        }
    }
}

fn tell(ask: &Ask, outcome: &Outcome) {
    let (namespace, dag_id, change) = (&ask.namespace, &ask.dag_id, ask.change.name());
    match outcome {
        Ok(_) => tracing::info!(%namespace, dag_id, change, "changed for a user"),
        Err(Failure { trouble, message }) => {
            tracing::info!(%namespace, dag_id, change, why = trouble.name(), "not changed: {message}");
        }
    }
}

impl Maker {
    /// With connections of its own to the metadata database, so that it holds up nobody else.
    pub(crate) fn new(
        config: &AirflowConfig,
        orders: watch::Receiver<Arc<Orders>>,
    ) -> Result<Self, SetUpError> {
        let metadata = config.metadata_url.as_ref();
        let metadata = metadata
            .map(|url| Metadata::new(url, config.metadata_timeout))
            .transpose()
            .map_err(SetUpError::Metadata)?
            .filter(|metadata| metadata.options().is_some());
        let login = config.api_password.clone().filter(|_| !config.api_username.is_empty());
        let rest = match (&config.api_url, login) {
            (Some(url), Some(password)) => {
                let login = (config.api_username.clone(), password);
                let rest = Rest::new(url, config.api_ca.as_deref(), config.change_timeout, login);
                Some(rest.map_err(SetUpError::Rest)?)
            }
            _ => None,
        };
        Ok(Self { metadata, rest, limit: config.change_timeout, orders })
    }

    /// Logs in, for people who want to know whether that works; none where there is no login.
    pub(crate) async fn try_login(&self) -> Option<Result<&'static str, Failure>> {
        Some(self.rest.as_ref()?.try_login().await)
    }

    async fn make_in_time(&self, ask: &Ask, until: Instant) -> Outcome {
        if Instant::now() >= until {
            return Err(Failure::new(Trouble::Busy, "it waited too long behind others"));
        }
        self.make(ask).await
    }

    async fn make(&self, ask: &Ask) -> Outcome {
        let Some(rest) = &self.rest else {
            let why = "the shard's agent has no login at Airflow; set airflow.api_url, \
                       airflow.api_username and airflow.api_password";
            return Err(Failure::new(Trouble::NotSetUp, why));
        };
        self.is_ordered(ask)?;
        let Some(metadata) = &self.metadata else {
            return self.ask_airflow(rest, ask).await;
        };
        let away = |error: &metadata::Error| Failure::new(Trouble::Away, chain(error));
        let mut tx = metadata.begin().await.map_err(|error| away(&error))?;
        let held = gate::hold(&mut tx, ask.namespace.as_str(), ask.generation.0).await;
        let outcome = match held {
            Ok(true) => match self.ask_airflow(rest, ask).await {
                Ok(done) => verify(&mut tx, ask, done).await,
                failed => failed,
            },
            Ok(false) => Err(not_active(ask)),
            Err(error) => return Err(away(&error)),
        };
        // Nothing was written; the hold ends.
        tx.rollback().await;
        outcome
    }

    async fn ask_airflow(&self, rest: &Rest, ask: &Ask) -> Outcome {
        let asking = rest.change(&ask.dag_id, &ask.change);
        timeout(self.limit, asking).await.unwrap_or_else(|_| {
            let why = format!("no answer from Airflow within {} s", self.limit.as_secs());
            Err(Failure::new(Trouble::InDoubt, why))
        })
    }

    /// Whether the router wants the shard to be active for it, as far as it was heard: another order
    /// is obeyed soon.
    fn is_ordered(&self, ask: &Ask) -> Result<(), Failure> {
        let orders = self.orders.borrow();
        let order = orders.get(&ask.namespace).filter(|order| {
            order.effective() == Desired { role: Role::Active, generation: ask.generation }
                && order.prefixes.iter().any(|prefix| ask.dag_id.starts_with(prefix.as_str()))
        });
        order.map(|_| ()).ok_or_else(|| not_active(ask))
    }
}

fn not_active(ask: &Ask) -> Failure {
    let why =
        format!("the shard is not active for {} at generation {}", ask.namespace, ask.generation);
    Failure::new(Trouble::NotActive, why)
}

/// Looks whether a pause state is what Airflow says that it is: somebody's trigger may keep it.
async fn verify(tx: &mut Transaction, ask: &Ask, done: Done) -> Outcome {
    let Change::Pause(paused) = ask.change else { return Ok(done) };
    match gate::is_paused(tx, &ask.dag_id).await {
        Ok(Some(found)) if found == paused => Ok(done),
        Ok(_) => {
            let why = "Airflow says so, but in its database the DAG's pause state is another one";
            Err(Failure::new(Trouble::Refused, why))
        }
        Err(error) => Err(Failure::new(Trouble::InDoubt, chain(&error))),
    }
}

/// Why nothing can be changed on the shard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetUpError {
    /// The metadata database.
    #[error("airflow.metadata_url cannot be used")]
    Metadata(#[source] airflow::Error),
    /// The web server.
    #[error("airflow.api_url cannot be used")]
    Rest(#[source] airflow::api::Error),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use airfleet_domain::ids::{Generation, Revision};
    use airfleet_runtime::config::Secret;

    use super::*;
    use crate::link::Order;

    fn ask(dag_id: &str, generation: i64) -> Ask {
        Ask {
            namespace: "pay".parse().unwrap(),
            generation: Generation(generation),
            dag_id: dag_id.to_owned(),
            change: Change::Pause(true),
        }
    }

    fn order(role: Role, quarantined: bool) -> Order {
        Order {
            desired: Desired { role, generation: Generation(3) },
            revision: Revision(1),
            prefixes: vec!["pay.".to_owned()],
            workload: Default::default(),
            manifest_revision: 1,
            task: None,
            quarantined,
        }
    }

    async fn trouble(order: Order, ask: &Ask) -> Trouble {
        let orders = BTreeMap::from([("pay".parse().unwrap(), order)]);
        let config = AirflowConfig {
            // Nobody listens there.
            api_url: Some("http://127.0.0.1:1".to_owned()),
            api_username: "somebody".to_owned(),
            api_password: Some(Secret::new("pw")),
            ..AirflowConfig::default()
        };
        let maker = Maker::new(&config, watch::channel(Arc::new(orders)).1).unwrap();
        maker.make(ask).await.unwrap_err().trouble
    }

    #[tokio::test]
    async fn nothing_is_asked_of_airflow_where_the_shard_is_not_active() {
        let dag = ask("pay.daily", 3);
        assert_eq!(trouble(order(Role::Active, false), &dag).await, Trouble::Away);
        for refused in [Role::Staged, Role::Quiesced, Role::Sealed, Role::Retired, Role::Absent] {
            assert_eq!(trouble(order(refused, false), &dag).await, Trouble::NotActive);
        }
        assert_eq!(trouble(order(Role::Active, true), &dag).await, Trouble::NotActive);
        for other in [ask("pay.daily", 2), ask("pay.daily", 4), ask("other.daily", 3)] {
            assert_eq!(trouble(order(Role::Active, false), &other).await, Trouble::NotActive);
        }
    }

    #[tokio::test]
    async fn without_a_login_nothing_is_changed() {
        let maker = Maker::new(&AirflowConfig::default(), watch::channel(Arc::default()).1);
        let failure = maker.unwrap().make(&ask("pay.daily", 3)).await.unwrap_err();
        assert_eq!(failure.trouble, Trouble::NotSetUp);
        assert!(failure.message.contains("airflow.api_username"), "{}", failure.message);
    }

    #[tokio::test]
    async fn who_comes_beyond_what_waits_is_told_so() {
        let outbox = Outbox::new(
            Duration::from_mins(1),
            crate::metrics::AgentMetrics::new(&airfleet_runtime::metrics::Metrics::new()),
        );
        let (changes, mut waiting) = Changes::new(outbox);
        let wire = |number| convert::change(ask("pay.daily", 3), number, 1_000);
        (0..101).for_each(|number| changes.ask(wire(number), 0));
        let mut taken = 0;
        while waiting.0.try_recv().is_ok() {
            taken += 1;
        }
        assert_eq!(taken, WAITING_MAX);
    }
}
