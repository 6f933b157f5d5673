//! A shard, and the agent beside it.
//!
//! Only what is durable has a state. An agent keeps nothing else that counts: whatever order ever
//! reaches it, late, twice, or held by a process that was replaced, it acts on it by what it finds,
//! one durable step at a time. So its crashes are in the model without being events of it.

use airfleet_domain::{
    ids::{Generation, MoveId, Revision},
    moves::{Drain, Evidence, Order, Part, Seen, Side, Transfer, TransferState},
    roles::{FenceFound, Found, Observed, Overtaken, Presence, Role, Step, next_step},
};

use crate::{Mutation, control::move_id};

/// An order, as short as can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Told {
    pub(crate) shard: u8,
    pub(crate) generation: Generation,
    pub(crate) revision: Revision,
    pub(crate) role: Role,
    pub(crate) task: Option<Task>,
}

/// What an order says of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Task {
    pub(crate) number: u8,
    pub(crate) takes: bool,
    pub(crate) transfer: Option<Part>,
}

impl Told {
    pub(crate) fn of(shard: u8, order: &Order) -> Self {
        let Seen { generation, revision } = order.place();
        let task = order.task.as_ref().map(|task| Task {
            number: task.move_id.as_str().trim_start_matches('m').parse().expect("a number"),
            takes: task.side == Side::Target,
            transfer: task.transfer.map(|transfer| transfer.part),
        });
        Self { shard, generation, revision, role: order.desired.role, task }
    }

    fn place(&self) -> Seen {
        Seen { generation: self.generation, revision: self.revision }
    }

    fn desired(&self) -> airfleet_domain::roles::Desired {
        airfleet_domain::roles::Desired { role: self.role, generation: self.generation }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Shard {
    pub(crate) found: Found,
    /// What the fence was last set for.
    pub(crate) task: Option<Task>,
    /// What it took in: the part, and of which move.
    pub(crate) taken: Option<(u8, Part)>,
    /// It hears nothing and says nothing, and may run all the same.
    pub(crate) away: bool,
    /// An operator took it on that it may still run: until it obeys an order of this generation.
    pub(crate) waived: Option<Generation>,
}

impl Shard {
    pub(crate) const NEW: Shard = Shard {
        found: Found {
            fence: None,
            settings: Presence::Nothing,
            files: Presence::Nothing,
            is_drained: true,
            reached: None,
        },
        task: None,
        taken: None,
        away: false,
        waived: None,
    };

    /// Whether it runs the namespace, and nobody took that on.
    pub(crate) fn is_active(&self) -> bool {
        self.is_open() && self.waived.is_none()
    }

    /// Whether Airflow may start runs here.
    pub(crate) fn is_open(&self) -> bool {
        self.found.fence.is_some_and(|fence| fence.is_open)
    }

    pub(crate) fn place(&self) -> Seen {
        self.found.fence.map_or(Seen::default(), |fence| fence.place)
    }

    /// What an agent that acts on an order does next.
    pub(crate) fn next(&self, told: &Told, mutation: Mutation) -> Result<Option<Step>, Overtaken> {
        let mut found = self.found;
        if let Some(fence) = &mut found.fence {
            let lower = match mutation {
                Mutation::ObeyLate => !fence.place.admits(told.place()),
                Mutation::OrderByGeneration => {
                    told.generation >= fence.place.generation && !fence.place.admits(told.place())
                }
                _ => false,
            };
            if lower {
                fence.place = Seen::default();
            }
        }
        next_step(told.desired(), told.place(), &found)
    }

    /// Whether an order can never be acted on any more.
    pub(crate) fn is_past(&self, told: &Told, mutation: Mutation) -> bool {
        self.next(told, mutation).is_err()
    }

    /// Acts on an order up to the next step that anybody else could notice; none where there is
    /// nothing to do.
    pub(crate) fn act(&self, told: &Told, mutation: Mutation) -> Option<Self> {
        let mut after = self.step(told, mutation)?;
        while let Ok(Some(Step::Settle | Step::Bring | Step::Remove | Step::Unsettle)) =
            after.next(told, mutation)
        {
            after = after.step(told, mutation)?;
        }
        Some(after)
    }

    fn step(&self, told: &Told, mutation: Mutation) -> Option<Self> {
        let step = self.next(told, mutation).ok()??;
        let mut after = *self;
        let found = &mut after.found;
        let fence = |is_open| FenceFound { place: told.place(), is_open, is_settled: true };
        match step {
            Step::Close | Step::Open => {
                // What runs when the fence comes up runs on for a while.
                found.is_drained = step == Step::Close && (found.is_drained || !self.is_open());
                found.fence = Some(fence(step == Step::Open));
                after.task = told.task;
                after.waived = after.waived.filter(|generation| told.generation < *generation);
                if step == Step::Open {
                    after.taken = None;
                }
            }
            Step::Settle => found.settings = Presence::Right,
            Step::Unsettle => found.settings = Presence::Nothing,
            Step::Bring => found.files = Presence::Right,
            Step::Remove => found.files = Presence::Nothing,
            Step::Drain => found.is_drained = true,
            Step::Reach => {
                let Told { role, generation, .. } = *told;
                found.reached = Some(Observed { role, generation });
                if role == Role::Absent {
                    after.taken = None;
                }
            }
        }
        Some(after)
    }

    /// What ran has ended; none where something may still be started, or nothing ran.
    pub(crate) fn drain(&mut self) -> Option<()> {
        (!self.is_open() && !self.found.is_drained).then(|| self.found.is_drained = true)
    }

    /// Takes in what the other end of a transfer sends; none where it may not, or has it.
    pub(crate) fn take(&self, told: &Told, source: &Shard) -> Option<Self> {
        let task = told.task.filter(|task| task.takes)?;
        let part = task.transfer?;
        let fence = self.found.fence?;
        let stands = fence.place == told.place() && !fence.is_open && told.role == Role::Staged;
        let ready = self.found.files == Presence::Right;
        let is_sealed = source.found.reached.is_some_and(|reached| reached.role == Role::Sealed);
        let sends = source
            .task
            .is_some_and(|other| other.number == task.number && other.transfer == Some(part))
            && (part == Part::Ahead || (is_sealed && !source.is_open()));
        let has = self.taken == Some((task.number, part));
        (stands && ready && sends && !has)
            .then_some(Self { taken: Some((task.number, part)), ..*self })
    }

    /// What its agent says.
    pub(crate) fn evidence(&self) -> Option<Evidence> {
        let fence = self.found.fence?;
        let task = self.task;
        let done = |part| Transfer {
            part,
            attempt: 1,
            state: TransferState::Done,
            tables: [].into(),
            total_bytes: 0,
            running: [].into(),
        };
        let is_sealed = self.found.reached.is_some_and(|reached| reached.role == Role::Sealed);
        let transfer = match task {
            Some(Task { takes: false, transfer: Some(part), .. }) => {
                (part == Part::Ahead || is_sealed).then(|| done(part))
            }
            Some(task) => {
                self.taken.filter(|(number, _)| *number == task.number).map(|t| done(t.1))
            }
            None => None,
        };
        let nothing: MoveId = "none".parse().expect("an id");
        Some(Evidence {
            move_id: task.map_or(nothing, |task| move_id(task.number)),
            revision: fence.place.revision,
            attempt: 1,
            observed: self.found.reached,
            obstacle: None,
            dag_ids: (self.found.files == Presence::Right).then(|| [].into()),
            drain: Some(Drain { confirmed: self.found.is_drained, ..Drain::default() }),
            marks: (is_sealed || matches!(self.taken, Some((_, Part::Rest)))).then(|| [].into()),
            transfer,
            stopped_at_us: None,
            started_at_us: None,
            start_marks: None,
            inserted: [].into(),
        })
    }
}
