//! One sync, from asking the source to showing the release.
//!
//! The steps, and what a kill between them leaves:
//!
//! 1. *ask*: the source lists what it holds. Nothing changed yet.
//! 2. *fetch*: files come into `staging/…/incoming`. The journal tells the next attempt which are
//!    whole.
//! 3. *assemble*: the oldest release that is no longer kept, or an empty folder, becomes
//!    `staging/…/tree` and is turned into the new release. A half-made tree is found by the next
//!    attempt and finished, for assembling looks at what is there.
//! 4. *seal*: index written, tree renamed into `releases`, everything synced to disk.
//! 5. *switch*: the link is renamed. This is the release, all or nothing.
//! 6. *freshen*: times of files are set, so that Airflow looks at what changed at once. Not done
//!    after a kill? `settled` names another release; the next sync does it.
//! 7. *tidy*: old releases and staging go.
//!
//! Every step may be repeated. The lock keeps two processes from doing them at once.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use airfleet_domain::{ids::NamespaceName, manifest};
use jiff::Timestamp;

use crate::{
    Changes, Inner, Step, Synced, Watch,
    bundle::{Entries, Entry, Freshen, Listed, Listing, Plan, content_id, find, freshen, merge},
    error::{Code, Error},
    incoming::Incoming,
    layout::{Layout, Lock, State},
    path::BundlePath,
    release::{Index, Release, ReleaseId},
    source::{Source, git},
    tree::{self, Inspection, Origins},
};

/// How often a source is read anew that changes meanwhile.
const ROUNDS_MAX: usize = 3;
/// Reading for longer than this, the source is listed once more: what was read first may belong to
/// another state than what was read last.
const RELIST_AFTER: Duration = Duration::from_millis(250);
/// Airflow parses a file again if it was modified after it was last parsed. A parse that began
/// before the switch and ends soon after it must not pass for one of the new file, so files that
/// changed are dated into the future by about as long as one takes.
const PARSE_TIME: Duration = Duration::from_secs(2);

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

    /// Makes the release of `index` the one that Airflow sees.
    fn deliver(
        &self,
        standing: Standing,
        mut index: Index,
        base: Option<&Index>,
        inspection: Inspection,
        files: &Files,
        fetched_bytes: u64,
    ) -> Result<Synced, Error> {
        let layout = self.layout();
        let id = index.release.id.clone();
        let was_there = layout.read_index(&self.namespace, &id)?;
        if let Some(known) = &was_there {
            // The same content; only what the source calls it may be new.
            index.release.fetched_at = known.release.fetched_at;
        }
        if standing.current.as_ref() == Some(&id) {
            return self.repair(
                standing,
                index,
                was_there.as_ref(),
                inspection,
                files,
                fetched_bytes,
            );
        }
        let mut state = standing.state;
        let folder = layout.release(&self.namespace, &id);
        let sound = match &was_there {
            Some(_) => tree::inspect(&folder, &index.entries, None)?.is_sound(),
            None => false,
        };
        if !sound {
            layout.drop_release(&self.namespace, &id)?;
            let staged = self.recycle(&state, standing.current.as_ref(), &id)?;
            let base_folder = match base {
                Some(base) => layout.release(&self.namespace, &base.release.id),
                None => staged.clone(),
            };
            let origins = Origins { base: &base_folder, walk: &inspection.walk, fetched: files };
            tree::assemble(&staged, &index.entries, &origins)?;
            self.tell(&Step::Assembled);
            fs::rename(&staged, &folder).map_err(Error::local("write", &folder))?;
        }
        layout.write_index(&index)?;
        layout.sync_all()?;
        self.tell(&Step::Sealed);

        let old = standing.live.as_ref().map_or(&[][..], |live| &live.entries);
        let fresh = freshen(old, &index.entries);
        state.latest = Some(id.clone());
        state.rejected = None;
        layout.write_state(&self.namespace, &state)?;
        layout.point(&self.namespace, &id)?;
        self.tell(&Step::Switched);
        self.settle(&mut state, &id, &index.entries, &fresh)?;
        Ok(Synced {
            release: index.release,
            previous: standing.current,
            changes: fresh.changes,
            switched: true,
            held: false,
            repaired: 0,
            fetched_bytes,
        })
    }

    /// The release is the one that Airflow sees: what was damaged of it is put right.
    fn repair(
        &self,
        standing: Standing,
        index: Index,
        was_there: Option<&Index>,
        mut inspection: Inspection,
        files: &Files,
        fetched_bytes: u64,
    ) -> Result<Synced, Error> {
        let layout = self.layout();
        let folder = layout.release(&self.namespace, &index.release.id);
        if was_there.is_none() {
            // Its index was lost: what is there could not be judged before.
            inspection = tree::inspect(&folder, &index.entries, None)?;
        }
        let mut state = standing.state;
        let mut repaired = Vec::new();
        if was_there != Some(&index) {
            layout.write_index(&index)?;
        }
        for path in &inspection.extra {
            let target = folder.join(path.as_str());
            tree::remove_file(&target)?;
            repaired.push(path.clone());
        }
        for path in &inspection.damaged {
            let Some(file) = files.get(path) else { continue };
            let target = folder.join(path.as_str());
            for parent in path.parents().collect::<Vec<_>>().into_iter().rev() {
                tree::make_folder(&folder.join(parent))?;
            }
            if target.is_dir() {
                tree::remove_folder(&target)?;
            }
            fs::rename(file, &target).map_err(Error::local("write", &target))?;
            repaired.push(path.clone());
        }
        let is_new = state.latest.as_ref() != Some(&index.release.id);
        if !repaired.is_empty() || is_new || state.settled.is_none() {
            if !repaired.is_empty() {
                tracing::warn!(
                    namespace = %self.namespace, release = %index.release.id, files = repaired.len(),
                    first = %repaired[0], "files were changed beside the deliveries; put right"
                );
            }
            state.latest = Some(index.release.id.clone());
            let others = repaired.iter().any(|path| {
                find(&index.entries, path.as_str()).is_none_or(|entry| !entry.holds_dags)
            });
            let first = repaired.iter().filter(|p| find(&index.entries, p.as_str()).is_some());
            let first = first.cloned().collect();
            let fresh = Freshen { changes: Changes::default(), first, others };
            self.settle(&mut state, &index.release.id, &index.entries, &fresh)?;
        } else {
            tree::remove_folder(&layout.staging(&self.namespace))?;
        }
        let files = index.entries.len();
        Ok(Synced {
            release: index.release,
            previous: standing.current,
            changes: Changes { kept: files, ..Changes::default() },
            switched: false,
            held: false,
            repaired: repaired.len(),
            fetched_bytes,
        })
    }

    fn unchanged(
        &self,
        standing: Standing,
        held: bool,
        fetched_bytes: u64,
    ) -> Result<Synced, Error> {
        let Some(live) = standing.live else {
            let message = format!(
                "the release of namespace {} that was rolled back to is gone; follow its source \
                 again to have it delivered",
                self.namespace
            );
            return Err(Error::here(Code::ReleaseUnknown, message));
        };
        tree::remove_folder(&self.layout().staging(&self.namespace))?;
        let kept = live.entries.len();
        Ok(Synced {
            release: live.release,
            previous: standing.current,
            changes: Changes { kept, ..Changes::default() },
            switched: false,
            held,
            repaired: 0,
            fetched_bytes,
        })
    }

    /// The folder that becomes the release: what an interrupted attempt left, or the oldest release
    /// if as many as are kept are here, or nothing.
    fn recycle(
        &self,
        state: &State,
        current: Option<&ReleaseId>,
        next: &ReleaseId,
    ) -> Result<PathBuf, Error> {
        let layout = self.layout();
        let staged = layout.staging(&self.namespace).join("tree");
        if staged.is_dir() {
            return Ok(staged);
        }
        let releases = layout.list(&self.namespace)?;
        let keep = self.inner.settings.keep.max(1);
        let victim =
            releases.iter().rev().map(|release| &release.id).find(|id| {
                Some(*id) != current && Some(*id) != state.latest.as_ref() && *id != next
            });
        match victim.filter(|_| releases.len() >= keep) {
            Some(victim) => {
                tree::remove_file(&layout.index(&self.namespace, victim))?;
                let folder = layout.release(&self.namespace, victim);
                fs::rename(&folder, &staged).map_err(Error::local("write", &staged))?;
            }
            None => tree::make_folder(&staged)?,
        }
        self.tell(&Step::Staged);
        Ok(staged)
    }

    /// What follows a switch: Airflow is made to look, old releases go, and the time is noted from
    /// which on any change to the files is somebody else's.
    pub(crate) fn settle(
        &self,
        state: &mut State,
        id: &ReleaseId,
        entries: &[Entry],
        fresh: &Freshen,
    ) -> Result<(), Error> {
        let layout = self.layout();
        let folder = layout.release(&self.namespace, id);
        let now = SystemTime::now();
        if fresh.others {
            let parsed = entries.iter().filter(|entry| entry.path.may_be_parsed());
            date(&folder, parsed.map(|entry| &entry.path), now)?;
        }
        date(&folder, fresh.first.iter(), now + PARSE_TIME)?;
        self.tell(&Step::Freshened);
        self.prune(state, id)?;
        self.tell(&Step::Pruned);
        state.settled = Some((id.clone(), layout.now_ns(&self.namespace)?));
        layout.write_state(&self.namespace, state)?;
        self.tell(&Step::Settled);
        Ok(())
    }

    /// Removes what is not kept: releases beyond the newest, folders of releases that were being
    /// removed, staging.
    fn prune(&self, state: &State, current: &ReleaseId) -> Result<(), Error> {
        let layout = self.layout();
        tree::remove_folder(&layout.staging(&self.namespace))?;
        let releases = layout.list(&self.namespace)?;
        let must = |id: &ReleaseId| {
            id == current
                || Some(id) == state.latest.as_ref()
                || Some(id) == state.rejected.as_ref()
        };
        let mut room = self.inner.settings.keep.max(1);
        room = room.saturating_sub(releases.iter().filter(|release| must(&release.id)).count());
        let mut kept: HashSet<&str> = HashSet::new();
        for release in &releases {
            if must(&release.id) || room > 0 {
                room -= usize::from(!must(&release.id));
                kept.insert(release.id.as_str());
            } else if let Err(error) = layout.drop_release(&self.namespace, &release.id) {
                // Airflow may have written files into it as another user. Space, not correctness.
                tracing::warn!(namespace = %self.namespace, release = %release.id, %error, "an old release stays");
            }
        }
        let folder = layout.releases(&self.namespace);
        for entry in fs::read_dir(&folder).map_err(Error::local("read", &folder))? {
            let entry = entry.map_err(Error::local("read", &folder))?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| kept.contains(name) || name == current.as_str()) {
                continue;
            }
            if let Err(error) = tree::remove_folder(&entry.path()) {
                tracing::warn!(namespace = %self.namespace, %error, "an old release stays");
            }
        }
        Ok(())
    }

    /// Shows a release that is here: a rollback, or forward again.
    pub(crate) fn switch(&self, id: &ReleaseId) -> Result<Synced, Error> {
        let layout = self.layout();
        let Standing { mut state, live, current } = self.stand()?;
        let Some(index) = layout.read_index(&self.namespace, id)? else {
            let here: Vec<String> =
                layout.list(&self.namespace)?.iter().map(|r| r.id.short().to_owned()).collect();
            let message = format!(
                "namespace {} has no release {id} here; it has {}",
                self.namespace,
                if here.is_empty() { "none".to_owned() } else { here.join(", ") }
            );
            return Err(Error::here(Code::ReleaseUnknown, message));
        };
        let inspection = self.inspect(Some(&index), None)?;
        if !inspection.is_sound() {
            let path = inspection.damaged.iter().chain(&inspection.extra).next();
            let message = format!(
                "release {id} of namespace {} was changed since it was delivered, such as {}; it \
                 is not shown",
                self.namespace,
                path.map_or("", BundlePath::as_str)
            );
            return Err(Error::here(Code::ReleaseDamaged, message));
        }
        // The newest one is held back until the source holds something else.
        state.rejected = state.latest.clone().filter(|latest| latest != id);
        layout.write_state(&self.namespace, &state)?;
        let old = live.as_ref().map_or(&[][..], |live| &live.entries);
        let fresh = freshen(old, &index.entries);
        let switched = current.as_ref() != Some(id);
        if switched {
            layout.sync_all()?;
            layout.point(&self.namespace, id)?;
            self.tell(&Step::Switched);
        }
        self.settle(&mut state, id, &index.entries, &fresh)?;
        Ok(Synced {
            release: index.release,
            previous: current,
            changes: fresh.changes,
            switched,
            held: state.rejected.is_some(),
            repaired: 0,
            fetched_bytes: 0,
        })
    }

    /// Lets the source lead again after a rollback.
    pub(crate) fn follow(&self) -> Result<(), Error> {
        let layout = self.layout();
        let mut state = layout.read_state(&self.namespace)?;
        if state.rejected.take().is_some() {
            layout.write_state(&self.namespace, &state)?;
        }
        Ok(())
    }

    pub(crate) fn remove(&self) -> Result<(), Error> {
        self.layout().hide(&self.namespace)?;
        self.tell(&Step::Switched);
        self.layout().forget(&self.namespace)
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

/// Sets when files were modified.
fn date<'a>(
    folder: &Path,
    paths: impl Iterator<Item = &'a BundlePath>,
    at: SystemTime,
) -> Result<(), Error> {
    use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_OMIT, utimensat};

    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: since.as_secs() as i64,
            tv_nsec: since.subsec_nanos().into(),
        },
    };
    let root = fs::File::open(folder).map_err(Error::local("open", folder))?;
    for path in paths {
        utimensat(&root, path.as_str(), &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| {
            Error::local("date", folder.join(path.as_str()))(std::io::Error::from(e))
        })?;
    }
    Ok(())
}
