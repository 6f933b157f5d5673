//! What each table is to a namespace that moves: the only list of names there is.
//!
//! A rule says what role a table plays, never which columns it has. Columns come from the schema,
//! and how one travels follows from its type, its keys and the few names below. A table that has no
//! rule and yet says something of a DAG is not understood, and neither is a column or a foreign key
//! that nothing here explains: the move does not begin.

/// What a table is to a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Whole rows shared by namespaces, which others refer to by a name; made where missing.
    Shared,
    /// Rows that the target has of its own, found again by a name.
    Found,
    /// The table of DAGs: rows are made where missing, and their cursor is set.
    Anchor,
    /// What a DAG is: goes ahead while the source runs, and again with everything.
    Definition,
    /// What happened.
    History,
    /// Stays. With a question, where rows that are answered by it would be lost: how many there are.
    /// `{schema}` is the schema, `{of:COLUMN}` the condition on a dag_id.
    Stays(Option<Pending>),
}

/// Rows that would be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    /// In words, after a number.
    pub(crate) what: &'static str,
    /// Counts them.
    pub(crate) sql: &'static str,
}

/// The role of a table; none where it has no rule.
pub(crate) fn role(table: &str) -> Option<Role> {
    Some(match table {
        "dag_bundle" => Role::Shared,
        "asset" => Role::Found,
        "dag" => Role::Anchor,
        "dag_version" | "serialized_dag" | "dag_code" | "deadline_alert" => Role::Definition,
        "dag_run"
        | "dag_run_note"
        | "task_instance"
        | "task_instance_history"
        | "task_instance_note"
        | "task_map"
        | "task_reschedule"
        | "task_state_store"
        | "xcom"
        | "rendered_task_instance_fields"
        | "hitl_detail"
        | "hitl_detail_history"
        | "log"
        | "asset_event"
        | "asset_dag_run_queue"
        | "dagrun_asset_event" => Role::History,
        // Made by whoever parses the files.
        "dag_tag" | "dag_owner_attributes" | "dag_warning"
        | "dag_schedule_asset_alias_reference" | "dag_schedule_asset_name_reference"
        | "dag_schedule_asset_reference" | "dag_schedule_asset_uri_reference"
        | "task_inlet_asset_reference" | "task_outlet_asset_reference" | "import_error"
        | "dag_priority_parsing_request"
        // Of a shard's own processes and people: numbers of users differ from shard to shard.
        | "job" | "trigger" | "callback" | "log_template" | "dag_favorite"
        | "asset_alias" | "asset_alias_asset" | "asset_alias_asset_event" | "asset_active"
        | "asset_watcher" | "partitioned_asset_key_log"
        // An open one delays a move, see OPEN_BACKFILL; of one that ended nobody reads any more.
        | "backfill" | "backfill_dag_run" => Role::Stays(None),
        "deadline" => Role::Stays(Some(Pending {
            what: "deadlines of runs that have not ended",
            sql: "SELECT count(*) FROM {schema}.deadline x \
                  JOIN {schema}.dag_run r ON r.id = x.dagrun_id \
                  WHERE NOT x.missed AND r.state IN ('queued', 'running') AND {of:r.dag_id}",
        })),
        "asset_partition_dag_run" => Role::Stays(Some(Pending {
            what: "partitions that wait for their assets",
            sql: "SELECT count(*) FROM {schema}.asset_partition_dag_run x \
                  WHERE x.created_dag_run_id IS NULL AND {of:x.target_dag_id}",
        })),
        "asset_state_store" => Role::Stays(Some(Pending {
            what: "states of assets that its tasks keep",
            sql: "SELECT count(*) FROM {schema}.asset_state_store x \
                  WHERE {of:x.last_updated_by_dag_id}",
        })),
        _ => return None,
    })
}

/// Columns that hold the dag_id by which a row is of a namespace.
pub(crate) const DAG_COLUMNS: [&str; 3] = ["dag_id", "source_dag_id", "target_dag_id"];

/// Columns by which a table that has no rule says something of a DAG.
pub(crate) const TELLING: [&str; 12] = [
    "dag_id",
    "source_dag_id",
    "target_dag_id",
    "dag_run_id",
    "dagrun_id",
    "run_id",
    "ti_id",
    "task_id",
    "task_instance_id",
    "dag_version_id",
    "serialized_dag_id",
    "ti_history_id",
];

/// Whether a table without a rule and with a telling column is none of Airflow's own: results of
/// the broker, Airfleet's tables, and what `airflow db clean` and migrations put aside.
pub(crate) fn is_foreign(table: &str) -> bool {
    ["airfleet_", "celery_", "_airflow_"].iter().any(|start| table.starts_with(start))
}

/// Whether a column means something on one shard only, and is empty on the other.
pub(crate) fn is_emptied(column: &str) -> bool {
    column.ends_with("_job_id")
        || matches!(column, "trigger_id" | "triggerer_id" | "backfill_id" | "external_executor_id")
}

/// The table whose newest row stands in a column, whatever stood there.
pub(crate) fn newest_of(column: &str) -> Option<&'static str> {
    (column == "log_template_id").then_some("log_template")
}

/// The table that a column refers to by its number, where the schema does not say so.
pub(crate) fn soft_reference(column: &str) -> Option<&'static str> {
    match column {
        "dag_run_id" | "dagrun_id" => Some("dag_run"),
        "asset_id" => Some("asset"),
        "event_id" => Some("asset_event"),
        _ => None,
    }
}

/// What tells rows apart, where no unique key does.
pub(crate) fn known_key(table: &str) -> Option<&'static [&'static str]> {
    (table == "asset_event").then_some(&[
        "asset_id",
        "source_dag_id",
        "timestamp",
        "source_task_id",
        "source_run_id",
        "source_map_index",
    ])
}

/// Whether a column of `dag` is part of what its schedule goes on from. Everything else of the row
/// is made by whoever parses the file.
pub(crate) fn is_cursor(column: &str) -> bool {
    column.starts_with("next_dagrun") || column == "exceeds_max_non_backfill"
}
