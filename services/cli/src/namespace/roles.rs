//! What shards are for namespaces: asked of the router, and shown.

use airfleet_proto::router::v1::{GetNamespaceStatusRequest, ListNamespaceStatusesRequest};
use jiff::Timestamp;

use crate::{
    args::TextOrJson,
    document::{
        self, List,
        roles::{RoleSummary, ShardRole},
    },
    error::{Exit, Result},
    human,
    pages::{self, PAGE},
    screen::{Paint, Tone},
    session::Session,
    table::{Cell, Fields, Table, or_none},
};

/// Most drifts and violations of a description.
const LISTED_MAX: usize = 10;

/// Characters of a release that tell it from others.
const RELEASE_CHARS: usize = 12;

/// Arguments of `namespace releases`.
#[derive(Debug, clap::Args)]
pub struct ReleasesArgs {
    /// Only what this shard runs
    #[arg(long, value_name = "SHARD")]
    shard: Option<String>,
    /// Only what needs attention: a role not reached, drift, broken rules, an obstacle
    #[arg(long)]
    attention: bool,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: TextOrJson,
}

/// What the shards are for one namespace; `None` where the router does not know it.
pub(super) async fn of(session: &Session<'_>, name: &str) -> Result<Option<Vec<ShardRole>>> {
    let request = GetNamespaceStatusRequest { namespace: name.to_owned() };
    let answer = session
        .router
        .call(&format!("cannot read what the shards are for {name:?}"), async |mut client| {
            client.get_namespace_status(request.clone()).await
        })
        .await;
    match answer {
        Ok(status) => Ok(Some(status.roles.into_iter().map(Into::into).collect())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the shards are for all namespaces, in short.
pub(super) async fn all(
    session: &Session<'_>,
    shard: &str,
    attention: bool,
) -> Result<Vec<RoleSummary>> {
    let router = &session.router;
    let roles = pages::all(async |page_token| {
        let request = ListNamespaceStatusesRequest {
            page_size: PAGE,
            page_token,
            shard: shard.to_owned(),
            attention,
        };
        let answer = router
            .call("cannot list what the shards are for namespaces", async |mut client| {
                client.list_namespace_statuses(request.clone()).await
            })
            .await?;
        Ok((answer.roles, answer.next_page_token))
    })
    .await?;
    Ok(roles.into_iter().map(Into::into).collect())
}

/// `namespace releases`.
pub(super) async fn releases(session: &mut Session<'_>, args: ReleasesArgs) -> Result<Exit> {
    let shard = args.shard.unwrap_or_default();
    let roles = all(session, &shard, args.attention).await?;
    let screen = &mut *session.screen;
    match args.output {
        TextOrJson::Json => screen.print(&document::json(&List::new("RoleList", roles))?)?,
        TextOrJson::Text if roles.is_empty() => screen.note(if args.attention {
            "Nothing needs attention."
        } else {
            "No shard has a namespace."
        }),
        TextOrJson::Text => {
            let table = table(&roles, true, Timestamp::now());
            screen.print(&table.render(screen.paint(), ""))?;
        }
    }
    Ok(Exit::Ok)
}

/// What a shard is, and what it is to be where that differs: `Staged→Active`.
pub(crate) fn role_cell(role: &RoleSummary) -> Cell {
    cell(role.role, role.desired_role, role.reached, role.obstacle.is_empty())
}

fn cell(role: &str, desired: &str, reached: bool, free: bool) -> Cell {
    let role = if role.is_empty() { "?" } else { role };
    if desired.is_empty() {
        return Cell::toned(Tone::Bad, format!("{role}, quarantined"));
    }
    match (reached, free) {
        (true, true) => Cell::toned(Tone::Good, role),
        (true, false) => Cell::toned(Tone::Warn, role),
        (false, true) if role == desired => Cell::toned(Tone::Warn, format!("{role}, outdated")),
        (false, true) => Cell::toned(Tone::Warn, format!("{role}→{desired}")),
        (false, false) => Cell::toned(Tone::Bad, format!("{role}→{desired}")),
    }
}

/// A commit or hash, short enough for a table.
pub(crate) fn release_cell(release: &str) -> Cell {
    let short: String = release.chars().take(RELEASE_CHARS).collect();
    if short.is_empty() { Cell::toned(Tone::Dim, "-") } else { short.into() }
}

/// A count that is better zero.
pub(crate) fn count_cell(count: i64) -> Cell {
    if count > 0 { Cell::toned(Tone::Warn, count.to_string()) } else { Cell::toned(Tone::Dim, "0") }
}

/// Roles in short; with the shard, where not all are of one.
pub(crate) fn table(roles: &[RoleSummary], with_shard: bool, now: Timestamp) -> Table {
    let mut header = vec!["NAMESPACE"];
    header.extend(with_shard.then_some("SHARD"));
    header.extend(["ROLE", "GEN ", "RELEASE", "SINCE", "DRIFT ", "VIOLATIONS ", "OBSTACLE"]);
    let mut table = Table::new(header);
    for role in roles {
        let mut cells: Vec<Cell> = vec![role.namespace.as_str().into()];
        if with_shard {
            cells.push(role.shard.as_str().into());
        }
        let obstacle = match (role.obstacle.as_str(), role.connected) {
            ("", true) => or_none(""),
            ("", false) => Cell::toned(Tone::Warn, "agent away"),
            (code, _) => Cell::toned(Tone::Bad, code),
        };
        cells.extend([
            role_cell(role),
            role.desired_generation.to_string().into(),
            release_cell(&role.release),
            role.release_time.map(|time| human::age(time, now)).unwrap_or_default().into(),
            count_cell(role.drift),
            count_cell(role.violations),
            obstacle,
        ]);
        table.row(cells);
    }
    table
}

/// What the shards are for a namespace, with what is wrong and what to do.
pub(super) fn describe(roles: &[ShardRole], paint: Paint, now: Timestamp) -> String {
    let mut parts = Vec::new();
    for role in roles {
        let mut text = fields(role, now).render(paint, "  ");
        if !role.drift.is_empty() {
            text.push_str(&drift_table(role).render(paint, "    "));
        }
        if !role.violations.is_empty() {
            text.push_str(&violations_table(role, now).render(paint, "    "));
        }
        parts.push(text);
    }
    if parts.is_empty() { "  <none>\n".to_owned() } else { parts.join("\n") }
}

fn fields(role: &ShardRole, now: Timestamp) -> Fields {
    let mut fields = Fields::default();
    fields.add("Shard", role.shard.as_str());
    fields.add("Role", cell(role.role, role.desired_role, role.reached, role.obstacle.is_none()));
    if !role.reached {
        let generation = format!("generation {}", role.desired_generation);
        fields.add("To be", format!("{} at {generation}: {}", role.desired_role, role.reason));
    }
    match (&role.obstacle, role.connected, role.report_time) {
        (Some(obstacle), ..) => {
            let tries = human::count(obstacle.attempts, "attempt");
            let since = obstacle.since_time.map(|time| format!(", for {}", human::age(time, now)));
            fields.add_lines(
                "Obstacle",
                [
                    Cell::toned(Tone::Bad, format!("{}: {}", obstacle.code, obstacle.message)),
                    Cell::toned(Tone::Dim, format!("{tries}{}", since.unwrap_or_default())),
                ],
            );
        }
        (None, false, Some(time)) => fields.add(
            "Agent",
            Cell::toned(Tone::Warn, format!("away; last report {} ago", human::age(time, now))),
        ),
        (None, false, None) => {
            fields.add("Agent", Cell::toned(Tone::Warn, "has not reported to this router yet"));
        }
        (None, true, _) => {}
    }
    fields.add_some("Waits for", Cell::toned(Tone::Warn, role.waits_for.as_str()));
    if let Some(release) = &role.release {
        let since = release.switch_time.map(|time| format!(", since {}", human::age(time, now)));
        let size = human::bytes(release.bytes);
        let files = human::count(release.files, "file");
        let since = since.unwrap_or_default();
        fields.add("Release", format!("{} ({files}, {size}{since})", release.id));
    }
    if role.fenced_dags > 0 {
        fields.add("Fenced DAGs", role.fenced_dags.to_string());
    }
    if let Some(time) = role.purge_time {
        fields.add("Rows kept until", human::time(time));
    }
    let shown = |count: i64, listed: usize| {
        let listed = listed.min(LISTED_MAX);
        let all = count as usize <= listed;
        Cell::toned(
            Tone::Warn,
            if all { count.to_string() } else { format!("{count}, {listed} shown") },
        )
    };
    if role.drift_count > 0 {
        fields.add("Drift", shown(role.drift_count, role.drift.len()));
    }
    if role.violation_count > 0 {
        fields.add("Violations", shown(role.violation_count, role.violations.len()));
    }
    fields
}

fn drift_table(role: &ShardRole) -> Table {
    let mut table = Table::new(["DRIFT", "WHAT", "POLICY", "MESSAGE"]);
    for drift in role.drift.iter().take(LISTED_MAX) {
        table.row([
            drift.code.as_str().into(),
            format!("{} {}", drift.kind, drift.name).into(),
            if drift.tolerated { "warn" } else { "enforce" }.into(),
            drift.message.as_str().into(),
        ]);
    }
    table
}

fn violations_table(role: &ShardRole, now: Timestamp) -> Table {
    let mut table = Table::new(["RULE", "MODE", "DAG", "TASK", "LAST", "TIMES ", "MESSAGE"]);
    for one in role.violations.iter().take(LISTED_MAX) {
        let tone = if one.mode == "warn" { Tone::Warn } else { Tone::Bad };
        table.row([
            one.code.as_str().into(),
            Cell::toned(tone, one.mode),
            one.dag_id.as_str().into(),
            or_none(&one.task_id),
            one.last_time.map(|time| human::age(time, now)).unwrap_or_default().into(),
            one.count.to_string().into(),
            one.message.as_str().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::roles::{Drift, Obstacle, Release, Violation};

    #[test]
    fn what_is_wrong_and_what_to_do_stands_in_a_description() {
        let owner = ShardRole {
            shard: "shard-b".into(),
            desired_role: "Active",
            desired_generation: 2,
            reason: "pinned to shard-b by op".into(),
            role: "Staged",
            obstacle: Some(Obstacle {
                code: "SOURCE_UNREACHABLE".into(),
                message: "cannot list s3://dags; check the credentials".into(),
                attempts: 3,
                since_time: Timestamp::from_second(1000).ok(),
            }),
            release: Some(Release {
                id: "4f2a".into(),
                switch_time: Timestamp::from_second(1000).ok(),
                files: 1,
                bytes: 2048,
            }),
            drift_count: 1,
            drift: vec![Drift {
                kind: "pool".into(),
                name: "etl".into(),
                code: "POOL_RESIZED".into(),
                message: "4 slots are declared, 9 were found".into(),
                tolerated: true,
            }],
            violation_count: 300,
            violations: vec![Violation {
                code: "AF107".into(),
                mode: "enforce",
                dag_id: "pay.daily".into(),
                task_id: "load".into(),
                message: "queue gpu is not allowed; use cpu".into(),
                last_time: Timestamp::from_second(1000).ok(),
                count: 7,
            }],
            connected: true,
            ..ShardRole::default()
        };
        let former = ShardRole {
            shard: "shard-a".into(),
            desired_role: "Retired",
            reached: true,
            role: "Retired",
            purge_time: Timestamp::from_second(90_000).ok(),
            ..ShardRole::default()
        };
        let now = Timestamp::from_second(1042).unwrap();
        assert_eq!(
            describe(&[owner, former], Paint::PLAIN, now),
            "  Shard:       shard-b
  Role:        Staged→Active
  To be:       Active at generation 2: pinned to shard-b by op
  Obstacle:    SOURCE_UNREACHABLE: cannot list s3://dags; check the credentials
               3 attempts, for 42s
  Release:     4f2a (1 file, 2.0 KiB, since 42s)
  Drift:       1
  Violations:  300, 1 shown
    DRIFT          WHAT       POLICY   MESSAGE
    POOL_RESIZED   pool etl   warn     4 slots are declared, 9 were found
    RULE    MODE      DAG         TASK   LAST   TIMES   MESSAGE
    AF107   enforce   pay.daily   load   42s        7   queue gpu is not allowed; use cpu

  Shard:            shard-a
  Role:             Retired
  Agent:            has not reported to this router yet
  Rows kept until:  1970-01-02 01:00:00 UTC
"
        );
    }

    #[test]
    fn roles_in_short_tell_what_runs_where() {
        let running = RoleSummary {
            namespace: "pay".into(),
            shard: "shard-a".into(),
            desired_role: "Active",
            desired_generation: 1,
            role: "Active",
            generation: 1,
            reached: true,
            release: "0123456789abcdef0123".into(),
            release_time: Timestamp::from_second(1000).ok(),
            connected: true,
            ..RoleSummary::default()
        };
        let stuck = RoleSummary {
            namespace: "search".into(),
            role: "",
            reached: false,
            release: String::new(),
            release_time: None,
            violations: 2,
            obstacle: "SOURCE_UNREACHABLE".into(),
            ..running.clone()
        };
        let now = Timestamp::from_second(1042).unwrap();
        assert_eq!(
            table(&[running, stuck], true, now).render(Paint::PLAIN, ""),
            "NAMESPACE   SHARD     ROLE       GEN   RELEASE        SINCE   DRIFT   VIOLATIONS   OBSTACLE
pay         shard-a   Active       1   0123456789ab   42s         0            0   <none>
search      shard-a   ?→Active     1   -                          0            2   SOURCE_UNREACHABLE
"
        );
    }
}
