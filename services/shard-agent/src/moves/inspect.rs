//! What the agent finds on its shard for a move that may be about to begin.
//!
//! Questions wait by namespace, the newest of each, and are answered one at a time: they read what
//! a namespace has, and nobody is in a hurry.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use airfleet_domain::moves::{Side, preflight::Inspection};
use airfleet_proto::agent::v1 as wire;
use airfleet_runtime::lifecycle::Shutdown;
use airfleet_transfer::{Airflow, Database, Look, Scope, inspect};
use tokio::{
    io::AsyncReadExt as _,
    process::Command,
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use crate::{
    AgentConfig,
    airflow::metadata::Metadata,
    link::{Orders, Outbox},
};

/// Questions that wait, at most. A router asks for the ends of few moves at a time.
const WAITING_MAX: usize = 1_000;

/// Time for a look. A router asks again before it is over, and takes the newer answer.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// Time for the command that lists providers.
const PROVIDERS_LIMIT: Duration = Duration::from_mins(1);

/// How long a list of providers counts as new: they change with an installation.
const PROVIDERS_AGE: Duration = Duration::from_mins(10);

/// What the command may write, at most. Bytes.
const PROVIDERS_BYTES: u64 = 4 << 20;

/// Takes questions in. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Inspector(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The newest of each namespace, in the order in which they came.
    waiting: Mutex<VecDeque<Question>>,
    asked: Notify,
    subject: Subject,
}

/// What a router asks, and the stream on which it waits for the answer.
#[derive(Debug)]
struct Question {
    asked: wire::Inspect,
    stream: u64,
}

/// What is looked at.
#[derive(Debug)]
enum Subject {
    /// A database with a namespace's rows.
    Database(Box<Database>),
    /// A database of another kind, which no rows are moved of.
    Other(&'static str),
    /// None that the agent knows.
    None,
}

impl Inspector {
    /// Looks at nothing yet.
    pub(crate) fn new(metadata: Option<&Metadata>) -> Self {
        let subject = match metadata.map(Metadata::options) {
            Some(Some(options)) => Subject::Database(Box::new(Database::new(options))),
            Some(None) => Subject::Other("sqlite"),
            None => Subject::None,
        };
        Self(Arc::new(Shared { waiting: Mutex::default(), asked: Notify::new(), subject }))
    }

    /// A router asks on this stream. An older question of the same namespace is not answered any more.
    pub(crate) fn ask(&self, asked: wire::Inspect, stream: u64) {
        let mut waiting = self.lock();
        waiting.retain(|other| other.asked.namespace != asked.namespace);
        if waiting.len() == WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back(Question { asked, stream });
        self.0.asked.notify_one();
    }

    fn next(&self) -> Option<Question> {
        self.lock().pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Question>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers questions until shutdown.
pub(crate) async fn keep_inspecting(
    inspector: Inspector,
    config: AgentConfig,
    outbox: Outbox,
    orders: watch::Receiver<Arc<Orders>>,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    let mut providers = Providers::default();
    loop {
        let Some(Question { asked, stream }) = inspector.next() else {
            tokio::select! {
                () = inspector.0.asked.notified() => continue,
                () = shutdown.triggered() => return Ok(()),
            }
        };
        let looking = async {
            let airflow = airflow(&config, &outbox, &mut providers).await;
            look(&inspector.0.subject, &asked, airflow).await
        };
        let mut found = tokio::select! {
            found = looking => found,
            () = shutdown.triggered() => return Ok(()),
        };
        if asked.side() == wire::MoveSide::Source {
            leave_out_what_it_brings(&mut found, &asked.namespace, &orders.borrow());
        }
        outbox.put_inspection(answer(&asked, found), stream);
    }
}

/// Pools that the namespace's manifest declares are made on whichever shard it is staged on.
fn leave_out_what_it_brings(found: &mut Inspection, namespace: &str, orders: &Orders) {
    if let Some(order) = orders.get(namespace) {
        found.pools.retain(|pool| order.workload.pools.iter().all(|brought| brought.name != *pool));
    }
}

/// What the agent knows of its Airflow, and what of that it could not find out.
async fn airflow(
    config: &AgentConfig,
    outbox: &Outbox,
    providers: &mut Providers,
) -> (Airflow, Option<String>) {
    let known = &config.airflow;
    let delivered = || config.delivery.dags_folder.as_ref().map(|path| path.display().to_string());
    let (providers, obstacle) = match providers.get(&known.providers_command).await {
        Ok(providers) => (providers, None),
        Err(why) => (BTreeMap::new(), Some(format!("airflow.providers_command failed: {why}"))),
    };
    let airflow = Airflow {
        version: outbox.versions().0,
        dags_folder: known.dags_folder.clone().or_else(delivered).unwrap_or_default(),
        providers,
        fernet_key: config.secrets.fernet_key.as_ref().map_or("", |key| key.expose()).to_owned(),
        secrets_backend: known.secrets_backend.clone(),
    };
    (airflow, obstacle)
}

async fn look(
    subject: &Subject,
    question: &wire::Inspect,
    (airflow, obstacle): (Airflow, Option<String>),
) -> Inspection {
    let unable = |obstacle: String| Inspection {
        airflow_version: airflow.version.clone(),
        dags_folder: airflow.dags_folder.clone(),
        obstacles: vec![obstacle],
        ..Inspection::default()
    };
    let database = match subject {
        Subject::Database(database) => database,
        Subject::Other(database) => {
            let words = format!("no rows can be moved from or to {database}");
            return Inspection { database: (*database).to_owned(), ..unable(words) };
        }
        Subject::None => return unable("the agent has no airflow.metadata_url".to_owned()),
    };
    let side = match question.side() {
        wire::MoveSide::Source => Side::Source,
        wire::MoveSide::Target => Side::Target,
        wire::MoveSide::Unspecified => {
            return unable("the agent was asked for a side that it does not know".to_owned());
        }
    };
    let scope = question.namespace.parse().map_err(|error| format!("{error}"));
    let scope = scope.and_then(|name| {
        Scope::new(name, question.prefixes.clone()).map_err(|error| error.to_string())
    });
    let scope = match scope {
        Ok(scope) => scope,
        Err(why) => return unable(why),
    };
    let looking = inspect(database, Look { scope: &scope, side, airflow: &airflow });
    let mut found = match timeout(LOOK_LIMIT, looking).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => unable(crate::words::chain(&error)),
        Err(_) => unable(format!("the metadata database did not answer within {LOOK_LIMIT:?}")),
    };
    found.obstacles.extend(obstacle);
    found
}

fn answer(question: &wire::Inspect, found: Inspection) -> wire::Inspection {
    wire::Inspection {
        number: question.number,
        namespace: question.namespace.clone(),
        side: question.side,
        airflow_version: found.airflow_version,
        schema_revision: found.schema_revision,
        schema_digest: found.schema_digest,
        not_understood: found.not_understood,
        database: found.database,
        dags_folder: found.dags_folder,
        providers: found.providers.into_iter().collect(),
        pools: found.pools.into_iter().collect(),
        fernet_digest: found.fernet_digest,
        secrets_backend: found.secrets_backend,
        dags: found.dags,
        runs: found.runs,
        task_instances: found.task_instances,
        running: found.running,
        deferred: found.deferred,
        open_backfills: found.open_backfills,
        asset_crossings: found.asset_crossings,
        obstacles: found.obstacles,
    }
}

/// What is installed beside Airflow, as a command lists it.
#[derive(Debug, Default)]
struct Providers {
    known: Option<(Instant, BTreeMap<String, String>)>,
}

/// One of them, as `airflow providers list -o json` writes it.
#[derive(Debug, serde::Deserialize)]
struct Provider {
    package_name: String,
    version: String,
}

impl Providers {
    /// Nothing where there is no command.
    async fn get(&mut self, command: &[String]) -> Result<BTreeMap<String, String>, String> {
        let Some((program, arguments)) = command.split_first() else {
            return Ok(BTreeMap::new());
        };
        if let Some((at, known)) = &self.known
            && at.elapsed() < PROVIDERS_AGE
        {
            return Ok(known.clone());
        }
        let listing = timeout(PROVIDERS_LIMIT, list(program, arguments)).await;
        let listed = listing.map_err(|_| format!("it took longer than {PROVIDERS_LIMIT:?}"))??;
        self.known = Some((Instant::now(), listed.clone()));
        Ok(listed)
    }
}

async fn list(program: &str, arguments: &[String]) -> Result<BTreeMap<String, String>, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    if let Some(written) = child.stdout.take() {
        let read = written.take(PROVIDERS_BYTES).read_to_end(&mut text).await;
        read.map_err(|error| error.to_string())?;
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("it ended with {status}"));
    }
    let providers: Vec<Provider> =
        serde_json::from_slice(&text).map_err(|error| format!("it wrote no list: {error}"))?;
    Ok(providers.into_iter().map(|one| (one.package_name, one.version)).collect())
}

#[cfg(test)]
mod tests {
    use airfleet_domain::{
        ids::{Generation, Revision},
        manifest::{Pool, Workload},
        roles::{Desired, Role},
    };

    use super::*;
    use crate::link::Order;

    fn question(number: i64, namespace: &str) -> wire::Inspect {
        wire::Inspect { number, namespace: namespace.to_owned(), ..wire::Inspect::default() }
    }

    #[test]
    fn a_pool_that_the_manifest_brings_is_not_looked_for_at_the_target() {
        let pool = |name: &str| Pool { name: name.to_owned(), ..Pool::default() };
        let order = |pools| Order {
            desired: Desired { role: Role::Active, generation: Generation(1) },
            revision: Revision(1),
            prefixes: vec![],
            workload: Workload { pools, ..Default::default() },
            manifest_revision: 1,
            task: None,
            quarantined: false,
        };
        let orders = BTreeMap::from([
            ("pay".parse().unwrap(), order(vec![pool("brought"), pool("unused")])),
            ("tax".parse().unwrap(), order(vec![pool("taxes")])),
        ]);
        let used = ["brought", "default_pool", "taxes"].map(str::to_owned);
        let mut found = Inspection { pools: used.into(), ..Default::default() };
        leave_out_what_it_brings(&mut found, "pay", &orders);
        assert_eq!(found.pools, ["default_pool", "taxes"].map(str::to_owned).into());
    }

    #[test]
    fn the_newest_question_of_a_namespace_is_answered() {
        let inspector = Inspector::new(None);
        for (number, namespace) in [(1, "pay"), (2, "ads"), (3, "pay")] {
            inspector.ask(question(number, namespace), 1);
        }
        let numbers = std::iter::from_fn(|| inspector.next()).map(|next| next.asked.number);
        assert_eq!(numbers.collect::<Vec<_>>(), [2, 3]);
        (0..2_000).for_each(|number| inspector.ask(question(number, &format!("n{number}")), 1));
        assert_eq!(inspector.next().unwrap().asked.number, 1_000);
    }

    #[tokio::test]
    async fn providers_are_those_that_a_command_lists() {
        let shell = |script: &str| ["sh", "-c", script].map(str::to_owned);
        let mut providers = Providers::default();
        assert!(providers.get(&[]).await.unwrap().is_empty());
        let failed = providers.get(&shell("exit 3")).await.unwrap_err();
        assert!(failed.contains("exit status: 3"), "{failed}");
        assert!(providers.get(&shell("echo hello")).await.is_err());
        let list =
            "echo '[{\"package_name\": \"one\", \"description\": \"x\", \"version\": \"1.2\"}]'";
        let listed = providers.get(&shell(list)).await.unwrap();
        assert_eq!(listed, BTreeMap::from([("one".to_owned(), "1.2".to_owned())]));
        // Known for a while.
        assert_eq!(providers.get(&shell("exit 3")).await.unwrap(), listed);
    }
}
