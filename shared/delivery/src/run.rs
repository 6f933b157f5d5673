//! One sync, from asking the source to showing the release.
//!
//! The steps, and what a kill between them leaves:
//!
//! 1. *ask*: the source lists what it holds. Nothing changed yet.
//! 2. *fetch*: files come into `staging/…/incoming`. The journal tells the next attempt which are
//!    whole.
//! 3. *assemble*: the oldest release that is no longer kept, or an empty folder, becomes
//!    `staging/…/tree` and is turned into the new release. A half-made tree is found by the next
//!    attempt and finished, for assembling looks at what is there; what was moved into it is
//!    recognised by its inode, and not fetched again.
//! 4. *seal*: tree renamed into `releases`, index written, everything synced to disk. From the index
//!    on the release is the base of the next attempt, which reads all of it before it trusts it.
//! 5. *switch*: the link is renamed. This is the release, all or nothing.
//! 6. *freshen*: times of files are set, so that Airflow looks at what changed at once. Not done
//!    after a kill? `settled` names another release; the next sync does it.
//! 7. *tidy*: old releases and staging go.
//!
//! Every step may be repeated. The lock keeps two processes from doing them at once.

mod deliver;
mod settle;

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use airfleet_domain::{ids::NamespaceName, manifest};
use jiff::Timestamp;

use crate::{
    Inner, Step, Synced, Watch,
    bundle::{Entries, Entry, Listed, Listing, Plan, content_id, freshen, merge},
    error::{Code, Error},
    incoming::Incoming,
    layout::{Layout, Lock, State},
    path::BundlePath,
    release::{Index, Release, ReleaseId},
    source::{Source, git},
    tree::{self, Inspection},
};

/// How often a source is read anew that changes meanwhile.
const ROUNDS_MAX: usize = 3;
/// Reading for longer than this, the source is listed once more: what was read first may belong to
/// another state than what was read last.
const RELIST_AFTER: Duration = Duration::from_millis(250);

/// Runs what waits for disks on a thread that may wait.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::here(Code::LocalIo, "the process is about to end")),
        },
    }
}

/// A namespace that is worked on.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) inner: Arc<Inner>,
    pub(crate) namespace: NamespaceName,
    pub(crate) watch: Watch,
    /// Held until the last step on a thread of its own is over, also where nobody waits for it.
    pub(crate) _lock: Arc<Lock>,
}

/// How things stand when a sync begins.
struct Standing {
    state: State,
    live: Option<Index>,
    /// Where the link points, whatever is known of it.
    current: Option<ReleaseId>,
}

/// Where files are that were fetched.
type Files = HashMap<BundlePath, PathBuf>;

/// What came from the source.
#[derive(Default)]
struct Fetched {
    entries: Entries,
    files: Files,
    bytes: u64,
}

/// What the source holds, and what is at hand of it.
struct Offer {
    /// The commit, where it is one.
    head: Option<git::Head>,
    /// Known beforehand where a commit names it.
    id: Option<ReleaseId>,
    plan: Plan,
    base: Option<Index>,
}

impl Run {
    fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    fn tell(&self, step: &Step) {
        (self.watch)(step);
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Run) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let run = self.clone();
        blocking(move || work(&run)).await
    }

    /// Brings the namespace to what its source holds.
    pub(crate) async fn sync(&self, declared: &manifest::Source) -> Result<Synced, Error> {
        let source = self.inner.sources.open(declared, self.layout().dags())?;
        let mut round = 1;
        loop {
            match self.round(declared, &source).await {
                Err(error) if error.code() == Code::SourceChanging && round < ROUNDS_MAX => {
                    tracing::debug!(namespace = %self.namespace, %error, "the source changes; reading it again");
                    round += 1;
                }
                result => return result,
            }
        }
    }

    async fn round(&self, declared: &manifest::Source, source: &Source) -> Result<Synced, Error> {
        let standing = self.on_thread(Run::stand).await?;
        // While the source is asked: is what Airflow sees what was delivered?
        let inspection = tokio::spawn({
            let (run, live) = (self.clone(), standing.live.clone());
            let sealed = standing.sealed();
            async move { run.on_thread(move |run| run.inspect(live.as_ref(), sealed)).await }
        });
        let offer = self.ask(source, &standing).await;
        let inspection = inspection.await.unwrap_or_else(|failed| {
            std::panic::resume_unwind(failed.into_panic());
        })?;
        let mut offer = offer?;
        if let Some(id) =
            offer.id.as_ref().filter(|id| standing.state.rejected.as_ref() == Some(*id))
        {
            tracing::debug!(namespace = %self.namespace, release = %id, "held: this release was rolled back");
            return self.unchanged(standing, true, 0);
        }

        // What the base holds is kept only as far as it is sound.
        let base_is_live = offer.base.as_ref().map(|base| &base.release.id)
            == standing.live.as_ref().map(|live| &live.release.id);
        let inspection = if base_is_live {
            inspection
        } else {
            let base = offer.base.clone();
            self.on_thread(move |run| run.inspect(base.as_ref(), None)).await?
        };
        offer.distrust(&inspection.damaged);

        let Fetched { entries, files, bytes: fetched_bytes } = self.fetch(source, &offer).await?;
        let entries = merge(std::mem::take(&mut offer.plan.kept), entries);
        let id = match &offer.id {
            Some(id) => id.clone(),
            None => content_id(&entries).parse()?,
        };
        self.tell(&Step::Fetched { files: entries.len(), bytes: fetched_bytes });
        let index = Index {
            release: Release {
                id,
                namespace: self.namespace.clone(),
                source: declared.clone(),
                commit: offer.head.as_ref().map(|head| head.commit.clone()),
                fetched_at: Timestamp::now(),
                files: entries.len(),
                bytes: entries.iter().map(|entry| entry.size_bytes).sum(),
            },
            entries,
            sealed_ns: None,
        };
        if standing.state.rejected.as_ref() == Some(&index.release.id) {
            return self.unchanged(standing, true, fetched_bytes);
        }
        let base = offer.base;
        self.on_thread(move |run| {
            run.deliver(standing, index, base.as_ref(), inspection, &files, fetched_bytes)
        })
        .await
    }

    /// Reads what is remembered, and finishes a switch that was interrupted.
    fn stand(&self) -> Result<Standing, Error> {
        let layout = self.layout();
        layout.prepare(&self.namespace)?;
        tree::make_folder(&layout.staging(&self.namespace))?;
        let mut state = layout.read_state(&self.namespace)?;
        let current = layout.current(&self.namespace)?;
        let live = match &current {
            Some(id) => layout.read_index(&self.namespace, id)?,
            None => None,
        };
        let settled = state.settled.as_ref().map(|(id, _)| id);
        if let Some(live) = live.as_ref().filter(|live| settled != Some(&live.release.id)) {
            // What it was switched from is not known any more: all files are made fresh.
            let all = freshen(&[], &live.entries);
            self.settle(&mut state, &live.release.id, &live.entries, &all)?;
        }
        self.tell(&Step::Begun);
        Ok(Standing { state, live, current })
    }

    fn inspect(&self, index: Option<&Index>, sealed: Option<i64>) -> Result<Inspection, Error> {
        match index {
            Some(index) => {
                let folder = self.layout().release(&self.namespace, &index.release.id);
                tree::inspect(&folder, &index.entries, sealed)
            }
            None => Ok(Inspection::default()),
        }
    }

    /// Asks the source, and plans.
    async fn ask(&self, source: &Source, standing: &Standing) -> Result<Offer, Error> {
        let limits = &self.inner.settings.limits;
        let latest = standing.state.latest.clone();
        let live = standing.live.clone();
        if let Source::Git(git) = source {
            let head = git.head().await?;
            let id = release_of(&head.commit, git.folder())?;
            let wanted = id.clone();
            let known =
                self.on_thread(move |run| run.layout().read_index(&run.namespace, &wanted)).await?;
            let whole = standing.current.as_ref() == Some(&id) || known.is_some();
            self.tell(&Step::Asked);
            if let Some(known) = known.filter(|_| whole) {
                // The commit is here: nothing to list, unless files of it are damaged.
                let kept = known.entries.clone();
                let plan = Plan { kept, fetch: Vec::new() };
                return Ok(Offer { head: Some(head), id: Some(id), plan, base: Some(known) });
            }
            let repository = self.repository(git);
            let folder = self.layout().git(&self.namespace);
            let keep = repository.clone();
            blocking(move || forget_others(&folder, &keep)).await?;
            let listing = git.list(&head, &repository, limits).await?;
            let base = self.base(latest, live).await?;
            let plan = plan(&listing, base.as_ref());
            return Ok(Offer { head: Some(head), id: Some(id), plan, base });
        }
        let listing = source.list(limits).await?;
        self.tell(&Step::Asked);
        let base = self.base(latest, live).await?;
        let plan = plan(&listing, base.as_ref());
        Ok(Offer { head: None, id: None, plan, base })
    }

    /// The release that has most in common with the next one.
    async fn base(
        &self,
        latest: Option<ReleaseId>,
        live: Option<Index>,
    ) -> Result<Option<Index>, Error> {
        match latest {
            Some(latest) if live.as_ref().map(|live| &live.release.id) != Some(&latest) => {
                let index = self
                    .on_thread(move |run| run.layout().read_index(&run.namespace, &latest))
                    .await?;
                Ok(index.or(live))
            }
            _ => Ok(live),
        }
    }

    /// Fetches what the plan says, and makes sure that it is of one state of the source.
    async fn fetch(&self, source: &Source, offer: &Offer) -> Result<Fetched, Error> {
        let plan = &offer.plan;
        if plan.fetch.is_empty() {
            return Ok(Fetched::default());
        }
        let need = plan.fetch_bytes();
        let incoming = self.on_thread(move |run| run.open_incoming(need)).await?;
        let (mut entries, mut missing) = (Vec::new(), Vec::new());
        for file in &plan.fetch {
            match incoming.recall(file) {
                Some(entry) => entries.push(entry),
                None => missing.push(file.clone()),
            }
        }
        self.tell(&Step::Fetching { files: missing.len() });
        let start = Instant::now();
        let incoming = Arc::new(incoming);
        let mut repository = PathBuf::new();
        if let (Source::Git(git), Some(head)) = (source, &offer.head) {
            repository = self.repository(git);
            git.ensure(head, &repository, &self.inner.settings.limits).await?;
        }
        if !missing.is_empty() {
            entries.extend(source.fetch(missing, &repository, &incoming).await?);
        }
        if offer.head.is_none() && start.elapsed() > RELIST_AFTER {
            let again = source.list(&self.inner.settings.limits).await?;
            let known = merge(plan.kept.clone(), entries.clone());
            let differing = Plan::new(&again, &known, &HashSet::new()).fetch.len();
            if differing > 0 || known.len() != again.files().len() {
                let message = format!(
                    "the source changes while it is read: {differing} files are new or differ by \
                     now; finish writing to it, or deliver from a repository"
                );
                return Err(Error::source(Code::SourceChanging, message));
            }
        }
        let incoming = Arc::into_inner(incoming).expect("whoever fetched is done");
        let bytes = incoming.fetched_bytes();
        Ok(Fetched { entries, files: incoming.into_files(), bytes })
    }

    fn open_incoming(&self, need_bytes: u64) -> Result<Incoming, Error> {
        let free = self.layout().free_bytes()?;
        let keep = self.inner.settings.limits.free_bytes;
        if free < need_bytes.saturating_add(keep) {
            let message = format!(
                "{need_bytes} bytes are to be fetched, {free} are free in {}, and {keep} are to \
                 stay free; make room, or lower delivery.free_bytes",
                self.layout().dags().display()
            );
            return Err(Error::here(Code::DiskLow, message));
        }
        Incoming::open(&self.layout().staging(&self.namespace))
    }

    fn repository(&self, git: &git::Git) -> PathBuf {
        git.repository(&self.layout().git(&self.namespace))
    }
}

impl Standing {
    /// When the live release was last known to be as it was delivered.
    fn sealed(&self) -> Option<i64> {
        let (id, at) = self.state.settled.as_ref()?;
        (self.live.as_ref().map(|live| &live.release.id) == Some(id)).then_some(*at)
    }
}

impl Offer {
    /// Has damaged files fetched instead of kept.
    fn distrust(&mut self, damaged: &HashSet<BundlePath>) {
        if damaged.is_empty() {
            return;
        }
        let (bad, kept): (Vec<Entry>, Vec<Entry>) =
            self.plan.kept.drain(..).partition(|entry| damaged.contains(&entry.path));
        self.plan.kept = kept;
        self.plan.fetch.extend(bad.into_iter().map(|entry| Listed {
            path: entry.path,
            size_bytes: entry.size_bytes,
            tag: entry.tag,
            executable: entry.executable,
        }));
    }
}

fn plan(listing: &Listing, base: Option<&Index>) -> Plan {
    Plan::new(listing, base.map_or(&[], |base| &base.entries), &HashSet::new())
}

/// The release that a commit is, or a folder of it.
fn release_of(commit: &str, folder: &str) -> Result<ReleaseId, Error> {
    use sha2::{Digest as _, Sha256};

    if folder.is_empty() {
        return commit.parse();
    }
    let hash = Sha256::digest(folder.as_bytes());
    format!("{commit}-{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3]).parse()
}

/// Removes repositories of sources that the namespace had before.
fn forget_others(folder: &Path, keep: &Path) -> Result<(), Error> {
    tree::make_folder(folder)?;
    for entry in fs::read_dir(folder).map_err(Error::local("read", folder))? {
        let path = entry.map_err(Error::local("read", folder))?.path();
        if path != keep {
            tree::remove_folder(&path)?;
        }
    }
    Ok(())
}
