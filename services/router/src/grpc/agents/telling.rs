//! Telling an agent what its shard is to be, a piece at a time.
//!
//! A piece is put together when the connection can take it: what is true of a name is looked up
//! then, its workload read from the store. Where the store is away, the names wait; nothing is told
//! by halves.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use airfleet_domain::ids::NamespaceName;
use airfleet_proto::agent::v1::{DesiredRoles, attach_response::Message};
use prost::Message as _;

use super::{answer, stream::Attached};
use crate::{chain, convert, leader::Leader};

/// Namespaces of which one piece tells at most.
const PIECE_NAMES: usize = 200;
/// Bytes of a piece from which on nothing more is put into it. Clients take 4 MiB, and one role is
/// never more than one.
const PIECE_BYTES: usize = 1 << 20;
/// Pause before workloads that could not be read are read again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Names that are being told.
#[derive(Debug)]
pub(super) struct Telling {
    names: VecDeque<NamespaceName>,
    /// Whether they are all there are.
    full: bool,
    /// Whether no piece was told yet.
    first: bool,
    due: Instant,
}

impl Telling {
    /// When the next piece is to be told.
    pub(super) fn due(&self) -> Instant {
        self.due
    }
}

impl Attached {
    /// Begins to tell what has changed since it was last told, if this replica leads.
    pub(super) fn begin_telling(&mut self) {
        // What is being told is told to its end first; then it is looked again.
        if self.telling.is_some() {
            return;
        }
        let Ok(leader) = self.service.leadership.leader() else { return };
        let is_new_leader = self.meet(&leader);
        let pending = self.session.take_pending();
        let full = pending.full || is_new_leader;
        if !full && pending.names.is_empty() {
            return;
        }
        let names = if full {
            leader.namespaces_on(self.session.shard().as_str()).into()
        } else {
            pending.names.into_iter().collect()
        };
        self.telling = Some(Telling { names, full, first: true, due: Instant::now() });
    }

    /// Whether this is another leader than the one that told last.
    fn meet(&mut self, leader: &Leader) -> bool {
        let is_new = leader.term != self.term;
        if is_new {
            self.term = leader.term;
            self.sequence = 0;
        }
        is_new
    }

    /// Tells the next piece, and looks for more after the last.
    pub(super) async fn tell_piece(&mut self) {
        let Some(mut telling) = self.telling.take() else { return };
        let leader = self.service.leadership.leader();
        let goes_on = leader.as_ref().is_ok_and(|leader| leader.term == self.term);
        let Some(leader) = leader.ok().filter(|_| goes_on) else {
            // Whoever leads next begins anew.
            self.session.forget_told();
            return self.begin_telling();
        };
        let count = telling.names.len().min(PIECE_NAMES);
        let mut names: VecDeque<NamespaceName> = telling.names.drain(..count).collect();
        let shard = self.session.shard().as_str().to_owned();
        let mut roles = Vec::with_capacity(names.len());
        let mut message = DesiredRoles { term: self.term.0, ..DesiredRoles::default() };
        for name in &names {
            match leader.desired(&shard, name.as_str()) {
                Some(role) => roles.push(role),
                None if telling.full => {}
                None => message.removed.push(name.to_string()),
            }
        }
        let read = {
            let slot = self.telling_slots.clone().acquire_owned().await;
            let workloads = leader.workloads(&roles).await;
            drop(slot);
            workloads
        };
        let mut workloads = match read {
            Ok(workloads) => workloads,
            Err(error) => {
                self.service.metrics.store_failed("workloads");
                tracing::warn!(shard, error = %chain(&error), "cannot tell an agent its roles yet");
                names.append(&mut telling.names);
                telling.names = names;
                telling.due = Instant::now() + AGAIN_AFTER;
                self.telling = Some(telling);
                return;
            }
        };
        let mut bytes = 0;
        let mut too_many = VecDeque::new();
        for role in roles {
            if bytes >= PIECE_BYTES {
                too_many.push_back(role.namespace);
                continue;
            }
            let role = convert::agent::desired_role(role, &mut workloads);
            bytes += role.encoded_len();
            message.roles.push(role);
        }
        names.retain(|name| !too_many.contains(name));
        too_many.append(&mut telling.names);
        telling.names = too_many;
        let more = !telling.names.is_empty();
        self.sequence += 1;
        message.sequence = self.sequence;
        message.full = telling.full && telling.first;
        message.more = telling.full && more;
        telling.first = false;
        if !telling.full {
            self.session.told(names);
        } else if !more {
            self.session.told_all();
        }
        self.outbox.push_back(answer(Message::DesiredRoles(message)));
        if more {
            self.telling = Some(telling);
        } else {
            // What changed meanwhile may have woken nobody.
            self.begin_telling();
        }
    }
}
