//! Namespaces as rows of a table and as documents.

use airfleet_domain::manifest::{Entry, Metadata, Namespace, NamespaceSpec};
use jiff::Timestamp;

use super::roles;
use crate::{
    document::{
        Assignment, Document, Kept, NamespaceStatus,
        roles::{RoleSummary, ShardRole},
    },
    human,
    screen::Tone,
    table::{Cell, Table, or_none},
};

/// A namespace and where it is.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) namespace: Namespace,
    pub(super) kept: Kept,
    pub(super) assignment: Option<Assignment>,
    /// Whether a shard owns it although the manifest no longer has it.
    pub(super) orphaned: bool,
    /// What its owner is for it, in short; where asked for.
    pub(super) role: Option<RoleSummary>,
    /// What the shards are for it; where asked for.
    pub(super) roles: Option<Vec<ShardRole>>,
}

impl Row {
    /// One that the manifest has.
    pub(super) fn declared((namespace, kept): (Namespace, Kept)) -> Self {
        Self { namespace, kept, assignment: None, orphaned: false, role: None, roles: None }
    }

    /// One that only the router knows: what there is to say of it.
    pub(super) fn orphan(assignment: Assignment) -> Self {
        let namespace = Namespace {
            metadata: Metadata { name: assignment.namespace.clone(), ..Metadata::default() },
            spec: NamespaceSpec {
                prefixes: assignment.prefixes.clone(),
                ..NamespaceSpec::default()
            },
        };
        let kept = Kept { uid: assignment.namespace_uid.clone(), ..Kept::default() };
        Self { orphaned: true, assignment: Some(assignment), ..Self::declared((namespace, kept)) }
    }

    fn state(&self) -> Cell {
        if self.orphaned {
            Cell::toned(Tone::Bad, "Orphaned")
        } else {
            state(self.assignment.as_ref())
        }
    }
}

impl From<Row> for Document<NamespaceStatus> {
    fn from(row: Row) -> Self {
        let Row { namespace, kept, assignment, orphaned, role: _, roles } = row;
        Document {
            entry: Entry::Namespace(namespace),
            status: NamespaceStatus { kept, assignment, orphaned, roles },
        }
    }
}

/// The state of an assignment, in the colour that it deserves.
pub(crate) fn state(assignment: Option<&Assignment>) -> Cell {
    match assignment {
        Some(assignment) if assignment.is_assigned() => Cell::toned(Tone::Good, assignment.state),
        Some(assignment) => Cell::toned(Tone::Warn, assignment.state),
        None => Cell::toned(Tone::Warn, "Pending"),
    }
}

pub(super) fn table(rows: &[Row], wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["NAME", "SHARD", "STATE", "OWNERS", "DAGS ", "AGE"];
    if wide {
        header.extend([
            "ROLE",
            "RELEASE",
            "DRIFT ",
            "VIOLATIONS ",
            "SLOTS ",
            "STARTS/H ",
            "GEN ",
            "PINNED",
            "PREFIXES",
            "LABELS",
            "REASON",
        ]);
    }
    let mut table = Table::new(header);
    for row in rows {
        let Row { namespace, kept, assignment, .. } = row;
        let (metadata, spec) = (&namespace.metadata, &namespace.spec);
        let assignment = assignment.as_ref();
        let of = |text: fn(&Assignment) -> &str| assignment.map_or("", text);
        let mut cells: Vec<Cell> = vec![
            metadata.name.as_str().into(),
            or_none(of(|a| &a.shard)),
            row.state(),
            or_none(&human::list(&spec.owners, 3)),
            spec.demand.dags.to_string().into(),
            kept.create_time.map(|time| human::age(time, now)).unwrap_or_default().into(),
        ];
        if wide {
            let role = row.role.as_ref();
            let unknown = || Cell::toned(Tone::Dim, "-");
            cells.extend([
                role.map_or_else(unknown, roles::role_cell),
                role.map_or_else(unknown, |role| roles::release_cell(&role.release)),
                role.map_or_else(unknown, |role| roles::count_cell(role.drift)),
                role.map_or_else(unknown, |role| roles::count_cell(role.violations)),
                spec.demand.running_slots.to_string().into(),
                spec.demand.task_starts_per_hour.to_string().into(),
                assignment.map_or_else(String::new, |a| a.generation.to_string()).into(),
                or_none(of(|a| &a.pinned_shard)),
                human::list(&spec.prefixes, 3).into(),
                or_none(&labels(&metadata.labels)),
                of(|a| &a.reason).into(),
            ]);
        }
        table.row(cells);
    }
    table
}

/// Labels as they are typed in a selector.
pub(crate) fn labels(labels: &airfleet_domain::labels::Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::Paint;

    fn rows() -> Vec<Row> {
        let text = "apiVersion: airfleet.dev/v1\nkind: Namespace\nmetadata: {name: payments, labels: {tier: gold}}\n\
                    spec: {owners: [team-a, team-b], prefixes: [pay., pay__], demand: {dags: 12, runningSlots: 3}}\n";
        let Entry::Namespace(namespace) =
            airfleet_domain::manifest::parse(text).unwrap().remove(0).entry
        else {
            panic!("it is a namespace")
        };
        let kept = Kept {
            uid: "u".into(),
            etag: "e".into(),
            revision: 3,
            create_time: Some(Timestamp::from_second(1_000_000).unwrap()),
            update_time: None,
        };
        let assignment = Assignment {
            namespace: "payments".into(),
            state: crate::document::ASSIGNED,
            shard: "shard-a".into(),
            generation: 2,
            reason: "most room".into(),
            ..Assignment::default()
        };
        let declared = Row::declared((namespace, kept));
        let orphan = Assignment {
            namespace: "forgotten".into(),
            prefixes: vec!["forgotten.".into()],
            ..assignment.clone()
        };
        vec![
            Row { assignment: Some(assignment), ..declared.clone() },
            declared,
            Row::orphan(orphan),
        ]
    }

    #[test]
    fn rows_tell_where_and_whose() {
        let now = Timestamp::from_second(1_000_000 + 86_400).unwrap();
        assert_eq!(
            table(&rows(), false, now).render(Paint::PLAIN, ""),
            "NAME        SHARD     STATE      OWNERS          DAGS   AGE\n\
             payments    shard-a   Assigned   team-a,team-b     12   1d\n\
             payments    <none>    Pending    team-a,team-b     12   1d\n\
             forgotten   shard-a   Orphaned   <none>             0\n"
        );
    }

    #[test]
    fn wide_rows_tell_the_rest() {
        let text = table(&rows(), true, Timestamp::UNIX_EPOCH).render(Paint::PLAIN, "");
        assert!(text.contains("pay.,pay__   tier=gold   most room"), "{text}");
    }
}
