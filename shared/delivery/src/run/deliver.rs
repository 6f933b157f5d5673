//! From fetched files to a release that Airflow sees.

use std::{fs, path::PathBuf};

use super::{Files, Run, Standing};
use crate::{
    Changes, Step, Synced,
    assemble::{Held, Origins, assemble},
    bundle::{Freshen, find, freshen},
    error::{Code, Error},
    layout::State,
    release::{Index, ReleaseId},
    tree::{self, Inspection},
};

impl Run {
    /// Makes the release of `index` the one that Airflow sees.
    pub(super) fn deliver(
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
            index.sealed_ns = known.sealed_ns;
            for (entry, known) in index.entries.iter_mut().zip(&known.entries) {
                entry.inode = if entry.path == known.path { known.inode } else { 0 };
            }
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
            let (staged, held) = self.recycle(&state, standing.current.as_ref(), &id)?;
            let base_folder = match base {
                Some(base) => layout.release(&self.namespace, &base.release.id),
                None => staged.clone(),
            };
            let origins = Origins { base: &base_folder, walk: &inspection.walk, fetched: files };
            assemble(&staged, &held, &mut index.entries, &origins)?;
            self.tell(&Step::Assembled);
            fs::rename(&staged, &folder).map_err(Error::local("write", &folder))?;
            index.sealed_ns = Some(layout.now_ns(&self.namespace)?);
        }
        layout.write_index(&index)?;
        // Before the disk is waited for: killed there, the next attempt finds the release, and
        // trusts no more of it than it reads.
        state.latest = Some(id.clone());
        layout.write_state(&self.namespace, &state)?;
        layout.sync_all()?;
        self.tell(&Step::Sealed);

        let old = standing.live.as_ref().map_or(&[][..], |live| &live.entries);
        let mut fresh = freshen(old, &index.entries);
        if standing.current.is_none() && files.len() == index.entries.len() {
            // Airflow saw nothing of the namespace, and every file was written since.
            fresh.first.clear();
            fresh.others = false;
        }
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

    pub(super) fn unchanged(
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
    /// if as many as are kept are here, or nothing. And what it holds.
    fn recycle(
        &self,
        state: &State,
        current: Option<&ReleaseId>,
        next: &ReleaseId,
    ) -> Result<(PathBuf, Held), Error> {
        let layout = self.layout();
        let staged = layout.staging(&self.namespace).join("tree");
        if staged.is_dir() {
            let held = Held::look(&staged)?;
            return Ok((staged, held));
        }
        let releases = layout.list(&self.namespace)?;
        let keep = self.inner.settings.keep.max(1);
        let victim =
            releases.iter().rev().map(|release| &release.id).find(|id| {
                Some(*id) != current && Some(*id) != state.latest.as_ref() && *id != next
            });
        let held = match victim.filter(|_| releases.len() >= keep) {
            Some(victim) => {
                let folder = layout.release(&self.namespace, victim);
                let held = match layout.read_index(&self.namespace, victim)? {
                    Some(index) => Held::recall(&folder, &index)?,
                    None => Held::look(&folder)?,
                };
                tree::remove_file(&layout.index(&self.namespace, victim))?;
                fs::rename(&folder, &staged).map_err(Error::local("write", &staged))?;
                held
            }
            None => {
                tree::make_folder(&staged)?;
                Held::default()
            }
        };
        self.tell(&Step::Staged);
        Ok((staged, held))
    }
}
