//! What groups have in common: one sandbox, routers on filled stores, and what the kernel tells of
//! a process.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use airfleet_integration_tests::{
    eventually,
    process::{Service, sqlite},
};
use airfleet_local::Sandbox;
use airfleet_proto::router::v1::{
    GetRouterStatusRequest, RouterStatus, router_service_client::RouterServiceClient,
};
use airfleet_sql::{Db, Options, Sql, params, write_tx};
use anyhow::{Context as _, Result, ensure};
use tonic::transport::Channel;

use crate::progress;

/// Namespaces of the large table.
pub(crate) const MILLION: u64 = 1_000_000;
/// Shards that they are spread over.
pub(crate) const SHARDS: u64 = 2_000;

/// Time for the slow steps: reading a million rows on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// Rows in one transaction of a fill.
const ROWS: u64 = 50_000;

/// The place of a run.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) sandbox: Sandbox,
}

impl Rig {
    pub(crate) async fn new() -> Result<Self> {
        Ok(Self { sandbox: Sandbox::create("airfleet-bench").await? })
    }

    /// A router, not started, whose store holds that many namespaces. The store is filled at the
    /// first call and then shared by groups, one after the other.
    pub(crate) async fn router(&self, namespaces: u64) -> Result<Service> {
        let name = format!("router-{namespaces}");
        let store = sqlite(&self.sandbox, &format!("{name}.db"));
        let settings = [("store.url", store.clone())];
        let mut router = Service::new(&self.sandbox, "airfleet-router", &name, &settings)?;
        if !self.sandbox.folder().join(format!("{name}.db")).exists() {
            let begun = Instant::now();
            // The router makes its tables; rows as it would write them are put in while it is away.
            router.start().await?;
            leading(&router).await?;
            router.stop().await;
            fill(&store, namespaces).await.context("the store cannot be filled")?;
            progress(&format!("{namespaces} namespaces stored in {:.1?}", begun.elapsed()));
        }
        Ok(router)
    }

    /// The same, started and leading.
    pub(crate) async fn serving(&self, namespaces: u64) -> Result<Service> {
        let mut router = self.router(namespaces).await?;
        router.start().await?;
        let status = leading(&router).await?;
        ensure!(
            status.namespaces as u64 == namespaces,
            "the router has {} of {namespaces} namespaces",
            status.namespaces
        );
        Ok(router)
    }

    /// A file of the sandbox.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.sandbox.folder().join(name)
    }
}

/// Name of the shard that owns the `n`th namespace, and of the simulated agent beside it.
pub(crate) fn shard_of(n: u64) -> String {
    format!("sim-{:04}", n % SHARDS)
}

/// Waits until the router leads; what it then says.
pub(crate) async fn leading(router: &Service) -> Result<RouterStatus> {
    eventually(PATIENCE, async || {
        let status = status(&mut router.router()).await?;
        ensure!(status.leader, "nobody leads yet");
        Ok(status)
    })
    .await
}

/// What a router says of itself.
pub(crate) async fn status(client: &mut RouterServiceClient<Channel>) -> Result<RouterStatus> {
    Ok(client.get_router_status(GetRouterStatusRequest {}).await?.into_inner())
}

/// Rows as a router writes them: namespaces and prefixes as [`dag_id`] asks for them, each assigned
/// by an own revision.
///
/// [`dag_id`]: airfleet_integration_tests::bench::load::dag_id
async fn fill(store: &str, namespaces: u64) -> Result<()> {
    let db = Db::open(store, Options { statement_timeout: PATIENCE, ..Options::default() }).await?;
    for from in (0..namespaces).step_by(ROWS as usize) {
        let to = (from + ROWS).min(namespaces);
        let sql = format!(
            "WITH RECURSIVE n(n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM n WHERE n < {to} - 1)
             INSERT INTO router_assignments (namespace, uid, shard, generation, state,
                pinned_shard, reason, prefixes, demand, placement, manifest_revision, orphaned,
                revision, updated_at)
             SELECT printf('team-%07d', n), printf('0198c2c0-0000-7000-8000-%012x', n),
                printf('sim-%04d', n % {SHARDS}), 1, 'assigned', '',
                'most room of the shards that fit', printf('[\"team-%07d.\"]', n),
                '{{\"dags\":10}}', '{{}}', n + 1, 0, n + 1, 1760000000000000 + n
             FROM n"
        );
        write_tx!(db, |tx| tx.execute(Sql::assembled(sql.clone()), params![]).await)?;
    }
    let shards = format!(
        "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {SHARDS} - 1)
         INSERT INTO router_shards (name, uid, manifest, manifest_revision, registered,
            cordoned_by, cordon_reason, barred_revision, revision, updated_at)
         SELECT printf('sim-%04d', n), printf('uid-%d', n),
            printf('{{\"metadata\":{{\"name\":\"sim-%04d\"}},\"spec\":{{\"url\":\"http://127.0.0.1:8080\"}}}}', n),
            1, 1, '', '', 0, 1, 1760000000000000
         FROM n"
    );
    let last = namespaces as i64;
    write_tx!(db, |tx| -> airfleet_sql::Result<()> {
        tx.execute(Sql::assembled(shards.clone()), params![]).await?;
        tx.execute(
            "UPDATE router_state SET revision = $1, manifest_revision = $1 WHERE id = 1",
            params![last],
        )
        .await?;
        Ok(())
    })?;
    db.close().await;
    Ok(())
}

/// Processor time that a process used so far, in its own code and in the kernel.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    // Linux tells it in ticks of a hundredth of a second, whatever its own clock does.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in brackets, which may hold anything.
    let (_, fields) = stat.rsplit_once(") ").context("stat has no name")?;
    let field = |at: usize| -> Result<u32> {
        Ok(fields.split(' ').nth(at).context("stat is short")?.parse()?)
    };
    Ok(TICK * (field(11)? + field(12)?))
}

/// A line of `/proc/PID/status` that is in kB, such as `VmRSS`, in megabytes of 10^6 bytes.
pub(crate) fn memory_mb(pid: u32, line: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kb: f64 = status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':')?.trim().strip_suffix(" kB"))
        .with_context(|| format!("the kernel tells no {line}"))?
        .parse()?;
    Ok(kb * 1024.0 / 1e6)
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
