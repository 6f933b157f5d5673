//! What follows a switch, and switches to what is here already: a rollback, a removal.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{Run, Standing};
use crate::{
    Step, Synced,
    bundle::{Entry, Freshen, freshen},
    error::{Code, Error},
    layout::State,
    path::BundlePath,
    release::ReleaseId,
    tree,
};

/// Airflow parses a file again if it was modified after it was last parsed. A parse that began
/// before the switch and ends soon after it must not pass for one of the new file, so files that
/// changed are dated into the future by about as long as one takes.
const PARSE_TIME: Duration = Duration::from_secs(2);

impl Run {
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
