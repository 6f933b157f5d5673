//! Installing the fence, looking at it, removing it.

use super::{
    super::metadata::{Bind, Error, Metadata, Transaction},
    VERSION,
};

const INSTALL: &str = include_str!("install.sql");

/// What version 2 adds.
const INSTALL_2: &str = include_str!("install_2.sql");

/// The trigger; apart from the rest because it locks the table of DAGs for a moment.
const TRIGGER: &str = "CREATE TRIGGER airfleet_keep_paused \
     BEFORE INSERT OR UPDATE OF is_paused ON {schema}.dag \
     FOR EACH ROW WHEN (NEW.is_paused IS DISTINCT FROM true) \
     EXECUTE FUNCTION {schema}.airfleet_keep_paused()";

/// What stays where the agent may not drop the trigger: a function that does nothing.
const INERT: &str = "CREATE OR REPLACE FUNCTION {schema}.airfleet_keep_paused() RETURNS trigger \
     LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp \
     AS 'BEGIN RETURN NEW; END'";

/// What a role needs besides reading. `{role}` is its name, quoted.
const GRANTS: &str = "
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role};
GRANT UPDATE ON {schema}.dag TO {role};
GRANT INSERT, UPDATE, DELETE ON {schema}.slot_pool, {schema}.variable, {schema}.connection TO {role};
GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role};
GRANT INSERT, UPDATE, DELETE ON {schema}.airfleet_role, {schema}.airfleet_fence,
  {schema}.airfleet_pause, {schema}.airfleet_owned, {schema}.airfleet_move TO {role};
";

/// Taken while the fence is installed or removed, so that agents do not do it at once.
const SETUP_LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('airfleet_fence_setup'))";

/// What an installation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// It was there as this agent brings it.
    Already,
    /// It was put there, or put right.
    Now,
    /// A later version is there, and stays.
    Newer(i64),
}

/// How the trigger is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TriggerState {
    /// It fires.
    Works,
    /// There is none.
    Missing,
    /// Somebody switched it off.
    Disabled,
    /// Its function is another one than this version brings.
    Altered,
}

/// What there is of a fence.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    /// Version of the tables; none where there is no fence.
    pub version: Option<i64>,
    /// When that version was installed.
    pub installed_at: Option<String>,
    /// By which agent.
    pub installed_by: Option<String>,
    /// How the trigger is.
    pub trigger: TriggerState,
    /// Namespaces with their roles, by name.
    pub namespaces: Vec<NamespaceStatus>,
    /// Prefixes of namespaces that this shard has no role for. Count.
    pub elsewhere: i64,
    /// DAGs that are fenced and yet not paused. Count; anything but 0 is to be looked at.
    pub leaks: i64,
}

impl Status {
    /// Whether it does what it is for.
    pub fn works(&self) -> bool {
        self.version.is_some() && self.trigger == TriggerState::Works && self.leaks == 0
    }
}

/// A namespace in the fence.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct NamespaceStatus {
    /// The namespace.
    pub namespace: String,
    /// Role of the last order.
    pub role: String,
    /// Generation of the last order.
    pub generation: i64,
    /// The last role that was reached completely.
    pub reached_role: Option<String>,
    /// Whether its DAGs may be unpaused.
    pub open: bool,
    /// DAGs with a row. Count.
    pub dags: i64,
    /// Those that are paused. Count.
    pub paused: i64,
    /// Pause states that are kept for them. Count.
    pub noted: i64,
}

/// What removing the fence did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Nothing is left.
    Complete,
    /// A trigger without effect is left, because only the owner of the table may drop it.
    TriggerLeft,
    /// There was none.
    Nothing,
}

/// Why the fence is not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// It keeps something that would be lost.
    #[error(
        "the fence holds the pause states of {noted} DAGs and keeps {fenced} DAGs paused, which \
         anybody could unpause then; use --force to give that up"
    )]
    InUse {
        /// Pause states. Count.
        noted: i64,
        /// Fenced DAGs. Count.
        fenced: i64,
    },
    /// The database does not let it.
    #[error(transparent)]
    Metadata(#[from] Error),
}

/// Installs the fence, upgrades an older one, and puts right what was altered. `grant_to` is a
/// role that gets what an agent needs of Airflow's tables and of the fence's.
pub async fn install(metadata: &Metadata, grant_to: Option<&str>) -> Result<Installed, Error> {
    let mut tx = metadata.begin().await?;
    tx.execute("lock the fence's setup", SETUP_LOCK, &[]).await?;
    let found = version(&mut tx).await?;
    if let Some((newer, ..)) = found.as_ref().filter(|(version, ..)| *version > VERSION) {
        return Ok(Installed::Newer(*newer));
    }
    let trigger = trigger_state(&mut tx).await?;
    let current = found.is_some_and(|(version, ..)| version == VERSION);
    let works = current && trigger == TriggerState::Works;
    if !works {
        tx.batch("install the fence", INSTALL).await?;
        tx.batch("install the fence", INSTALL_2).await?;
        // The trigger hides its own errors, by denying.
        tx.batch("try the fence", "SELECT {schema}.airfleet_fenced('dag')").await?;
        tx.execute(
            "note the fence's version",
            "INSERT INTO {schema}.airfleet_fence_version (version, installed_by) VALUES ($1, $2) \
             ON CONFLICT (version) DO UPDATE SET installed_at = now(), installed_by = $2",
            &[Bind::Number(VERSION), Bind::Text(crate::VERSION)],
        )
        .await?;
        match trigger {
            TriggerState::Works | TriggerState::Altered => {}
            TriggerState::Missing => tx.batch("create the fence's trigger", TRIGGER).await?,
            TriggerState::Disabled => {
                let enable = "ALTER TABLE {schema}.dag ENABLE TRIGGER airfleet_keep_paused";
                tx.batch("enable the fence's trigger", enable).await?;
            }
        }
    }
    if let Some(role) = grant_to {
        let quoted: (String,) = tx
            .query_as("SELECT quote_ident($1)")
            .bind(role.to_owned())
            .fetch_one(tx.connection())
            .await
            .map_err(Error::of("quote a role"))?;
        tx.batch("grant rights to the agent's role", &GRANTS.replace("{role}", &quoted.0)).await?;
    }
    tx.commit().await?;
    Ok(if works { Installed::Already } else { Installed::Now })
}

/// Looks at the fence.
pub async fn status(metadata: &Metadata) -> Result<Status, Error> {
    let mut tx = metadata.begin().await?;
    let found = version(&mut tx).await?;
    let trigger = trigger_state(&mut tx).await?;
    let mut status = Status {
        version: None,
        installed_at: None,
        installed_by: None,
        trigger,
        namespaces: Vec::new(),
        elsewhere: 0,
        leaks: 0,
    };
    let Some((version, at, by)) = found else {
        tx.rollback().await;
        return Ok(status);
    };
    status.version = Some(version);
    (status.installed_at, status.installed_by) = (Some(at), Some(by));
    let namespaces = "\
        SELECT r.namespace, r.role, r.generation, r.reached_role, \
          coalesce((SELECT bool_or(f.open) FROM {schema}.airfleet_fence f \
            WHERE f.namespace = r.namespace), false) AS open, \
          count(d.dag_id) AS dags, count(d.dag_id) FILTER (WHERE d.is_paused) AS paused, \
          count(p.dag_id) AS noted \
        FROM {schema}.airfleet_role r \
        LEFT JOIN {schema}.dag d ON EXISTS (SELECT FROM {schema}.airfleet_fence f \
          WHERE f.namespace = r.namespace AND starts_with(d.dag_id, f.prefix)) \
        LEFT JOIN {schema}.airfleet_pause p ON p.dag_id = d.dag_id \
        GROUP BY r.namespace ORDER BY r.namespace COLLATE \"C\"";
    status.namespaces = tx
        .query_as(namespaces)
        .fetch_all(tx.connection())
        .await
        .map_err(Error::of("read the fence"))?;
    let (elsewhere, leaks): (i64, i64) = tx
        .query_as(
            "SELECT (SELECT count(*) FROM {schema}.airfleet_fence WHERE elsewhere), \
             (SELECT count(*) FROM {schema}.dag \
              WHERE is_paused IS DISTINCT FROM true AND {schema}.airfleet_fenced(dag_id))",
        )
        .fetch_one(tx.connection())
        .await
        .map_err(Error::of("read the fence"))?;
    (status.elsewhere, status.leaks) = (elsewhere, leaks);
    tx.rollback().await;
    Ok(status)
}

/// Removes the fence. DAGs stay as they are, paused ones too.
pub async fn remove(metadata: &Metadata, force: bool) -> Result<Removal, RemoveError> {
    let mut tx = metadata.begin().await?;
    tx.execute("lock the fence's setup", SETUP_LOCK, &[]).await?;
    if version(&mut tx).await?.is_none() {
        tx.rollback().await;
        return Ok(Removal::Nothing);
    }
    let (noted, fenced): (i64, i64) = tx
        .query_as(
            "SELECT (SELECT count(*) FROM {schema}.airfleet_pause), \
             (SELECT count(*) FROM {schema}.dag WHERE {schema}.airfleet_fenced(dag_id))",
        )
        .fetch_one(tx.connection())
        .await
        .map_err(Error::of("read the fence"))?;
    if (noted, fenced) != (0, 0) && !force {
        tx.rollback().await;
        return Err(RemoveError::InUse { noted, fenced });
    }
    tx.batch("save", "SAVEPOINT airfleet_trigger").await?;
    let drop = "DROP TRIGGER IF EXISTS airfleet_keep_paused ON {schema}.dag; \
                DROP FUNCTION {schema}.airfleet_keep_paused()";
    let removal = match tx.batch("drop the fence's trigger", drop).await {
        Ok(()) => Removal::Complete,
        Err(error) if error.is_not_allowed() => {
            tx.batch("go back", "ROLLBACK TO SAVEPOINT airfleet_trigger").await?;
            tx.batch("make the fence's trigger inert", INERT).await?;
            Removal::TriggerLeft
        }
        Err(error) => return Err(error.into()),
    };
    let rest = "DROP FUNCTION {schema}.airfleet_fenced(text); \
                DROP TABLE {schema}.airfleet_fence_version, {schema}.airfleet_role, \
                  {schema}.airfleet_fence, {schema}.airfleet_pause, {schema}.airfleet_owned; \
                DROP TABLE IF EXISTS {schema}.airfleet_move";
    tx.batch("drop the fence's tables", rest).await?;
    tx.commit().await?;
    Ok(removal)
}

/// Version, when and by whom it was installed.
async fn version(tx: &mut Transaction) -> Result<Option<(i64, String, String)>, Error> {
    let there: (bool,) = tx
        .query_as("SELECT to_regclass('{schema}.airfleet_fence_version') IS NOT NULL")
        .fetch_one(tx.connection())
        .await
        .map_err(Error::of("look for the fence"))?;
    if !there.0 {
        return Ok(None);
    }
    tx.query_as(
        "SELECT version, to_char(installed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
           installed_by FROM {schema}.airfleet_fence_version ORDER BY version DESC LIMIT 1",
    )
    .fetch_optional(tx.connection())
    .await
    .map_err(Error::of("read the fence's version"))
}

/// How the trigger is, and whether its functions are those of this version.
pub(crate) async fn trigger_state(tx: &mut Transaction) -> Result<TriggerState, Error> {
    let found: Option<(String, String, Option<String>)> = tx
        .query_as(
            "SELECT CAST(t.tgenabled AS text), p.prosrc, \
               (SELECT f.prosrc FROM pg_proc f WHERE f.oid = to_regprocedure('{schema}.airfleet_fenced(text)')) \
             FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid \
             WHERE t.tgrelid = to_regclass('{schema}.dag') AND t.tgname = 'airfleet_keep_paused'",
        )
        .fetch_optional(tx.connection())
        .await
        .map_err(Error::of("look at the fence's trigger"))?;
    Ok(match found {
        None => TriggerState::Missing,
        Some((enabled, ..)) if enabled == "D" => TriggerState::Disabled,
        Some((_, keep, Some(fenced))) if is_ours(tx, &keep) && is_ours(tx, &fenced) => {
            TriggerState::Works
        }
        Some(_) => TriggerState::Altered,
    })
}

/// Whether a function's body is one that this version brings.
fn is_ours(tx: &Transaction, body: &str) -> bool {
    tx.render(INSTALL).split("$body$").any(|part| part == body)
}
