//! `airfleet status`: the state of the control plane.

use std::fmt::Write as _;

use airfleet_proto::{
    registry::v1::ListNamespacesRequest,
    router::v1::{AssignmentState, GetRouterStatusRequest, ListAssignmentsRequest, RouterStatus},
};
use serde::Serialize;

use crate::{
    args::{StatusArgs, TextOrJson},
    document::{self, ShardState},
    error::{Error, Exit, Result},
    human,
    pages::{self, PAGE},
    screen::{Paint, Tone},
    session::Session,
    shard,
    table::{Cell, Fields},
};

/// Everything that is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    registry: Registry,
    router: Router,
    shards: Vec<ShardState>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Registry {
    endpoints: Vec<String>,
    reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    revision: i64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Router {
    endpoints: Vec<String>,
    reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    replica: String,
    leader: bool,
    leader_address: String,
    term: i64,
    revision: i64,
    age_ms: i64,
    source: String,
    manifest_revision: i64,
    namespaces: i64,
    unplaced: usize,
    agents: i64,
}

/// Does it.
pub async fn run(session: &mut Session<'_>, args: StatusArgs) -> Result<Exit> {
    let mut failures = Vec::new();
    let registry = registry(session, &mut failures).await;
    let router = router(session, &mut failures).await;
    let mut shards: Vec<ShardState> = if router.reachable {
        match shard::states(session).await {
            Ok(states) => states.into_values().collect(),
            Err(error) => {
                failures.push(error);
                Vec::new()
            }
        }
    } else {
        Vec::new()
    };
    shards.sort_by(|a, b| a.shard.cmp(&b.shard));
    let status = Status { registry, router, shards };
    let text = match args.output {
        TextOrJson::Json => document::json(&status)?,
        TextOrJson::Text => text(&status, session.screen.paint()),
    };
    session.screen.print(&text)?;
    // The first tells most: what fails after it may follow from it.
    failures.into_iter().next().map_or(Ok(Exit::Ok), Err)
}

async fn registry(session: &Session<'_>, failures: &mut Vec<Error>) -> Registry {
    let mut registry =
        Registry { endpoints: session.registry.endpoints().to_vec(), ..Registry::default() };
    let request = ListNamespacesRequest { page_size: 1, ..Default::default() };
    let answer = session
        .registry
        .call("cannot reach the registry", async |mut client| {
            client.list_namespaces(request.clone()).await
        })
        .await;
    match answer {
        Ok(answer) => (registry.reachable, registry.revision) = (true, answer.revision),
        Err(error) => {
            registry.error = Some(error.to_string());
            failures.push(error);
        }
    }
    registry
}

async fn router(session: &Session<'_>, failures: &mut Vec<Error>) -> Router {
    let endpoints = session.router.endpoints().to_vec();
    let answer = session
        .router
        .call("cannot reach the router", async |mut client| {
            client.get_router_status(GetRouterStatusRequest {}).await
        })
        .await;
    let status: RouterStatus = match answer {
        Ok(status) => status,
        Err(error) => {
            let text = Some(error.to_string());
            failures.push(error);
            return Router { endpoints, error: text, ..Router::default() };
        }
    };
    let router = &session.router;
    let unplaced = pages::all(async |page_token| {
        let request = ListAssignmentsRequest {
            page_size: PAGE,
            page_token,
            state: AssignmentState::Unplaced.into(),
            ..Default::default()
        };
        let answer = router
            .call("cannot list what is not placed", async |mut client| {
                client.list_assignments(request.clone()).await
            })
            .await?;
        Ok((answer.assignments, answer.next_page_token))
    })
    .await;
    let unplaced = unplaced.map_or_else(
        |error| {
            failures.push(error);
            0
        },
        |unplaced| unplaced.len(),
    );
    Router {
        endpoints,
        reachable: true,
        error: None,
        replica: status.replica,
        leader: status.leader,
        leader_address: status.leader_address,
        term: status.term,
        revision: status.revision,
        age_ms: status.age_ms,
        source: status.source,
        manifest_revision: status.manifest_revision,
        namespaces: status.namespaces,
        unplaced,
        agents: status.agents,
    }
}

fn text(status: &Status, paint: Paint) -> String {
    let Status { registry, router, shards } = status;
    let reached = |reachable: bool| {
        if reachable {
            Cell::toned(Tone::Good, "reachable")
        } else {
            Cell::toned(Tone::Bad, "not reachable")
        }
    };
    let mut fields = Fields::default();
    fields.add("Endpoints", registry.endpoints.join(", "));
    fields.add("State", reached(registry.reachable));
    if registry.reachable {
        fields.add("Manifest", format!("revision {}", registry.revision));
    }
    let mut text =
        format!("{}\n{}", paint.tone(Tone::Strong, "Registry"), fields.render(paint, "  "));

    let mut fields = Fields::default();
    fields.add("Endpoints", router.endpoints.join(", "));
    fields.add("State", reached(router.reachable));
    if router.reachable {
        router_fields(&mut fields, router, registry);
    }
    let _ =
        write!(text, "\n{}\n{}", paint.tone(Tone::Strong, "Router"), fields.render(paint, "  "));
    if !shards.is_empty() {
        let table = shard::summary_table(shards).render(paint, "  ");
        let _ = write!(text, "\n{}\n{table}", paint.tone(Tone::Strong, "Shards"));
    }
    text
}

fn router_fields(fields: &mut Fields, router: &Router, registry: &Registry) {
    let term = router.term;
    fields.add(
        "Replica",
        match (router.leader, router.leader_address.as_str()) {
            (true, _) => format!("{}, leads (term {term})", router.replica).into(),
            (false, "") => {
                Cell::toned(Tone::Warn, format!("{}, follows; nobody leads", router.replica))
            }
            (false, leader) => format!("{}, follows {leader} (term {term})", router.replica).into(),
        },
    );
    let from = if router.source == "snapshot" { ", from its local snapshot" } else { "" };
    let table =
        format!("revision {}, {} old{from}", router.revision, human::short_span(router.age_ms));
    fields.add(
        "Table",
        if router.source == "snapshot" { Cell::toned(Tone::Warn, table) } else { table.into() },
    );
    let behind = registry.revision - router.manifest_revision;
    let manifest = format!("revision {} taken into account", router.manifest_revision);
    fields.add(
        "Manifest",
        if registry.reachable && behind > 0 {
            Cell::toned(Tone::Warn, format!("{manifest}, {behind} behind the registry"))
        } else {
            manifest.into()
        },
    );
    fields.add("Namespaces", router.namespaces.to_string());
    if router.unplaced > 0 {
        fields.add("Without a shard", Cell::toned(Tone::Warn, router.unplaced.to_string()));
    }
    fields.add("Agents", format!("{} connected", router.agents));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            registry: Registry {
                endpoints: vec!["http://127.0.0.1:7410".into()],
                reachable: true,
                error: None,
                revision: 57,
            },
            router: Router {
                endpoints: vec!["http://127.0.0.1:7420".into()],
                reachable: true,
                replica: "router-0".into(),
                leader: true,
                term: 3,
                revision: 61,
                age_ms: 200,
                source: "store".into(),
                manifest_revision: 55,
                namespaces: 55,
                unplaced: 1,
                agents: 2,
                ..Router::default()
            },
            shards: vec![ShardState { shard: "shard-a".into(), ..ShardState::default() }],
        }
    }

    #[test]
    fn the_state_is_told_in_a_page() {
        assert_eq!(
            text(&status(), Paint::PLAIN),
            "\
Registry
  Endpoints:  http://127.0.0.1:7410
  State:      reachable
  Manifest:   revision 57

Router
  Endpoints:        http://127.0.0.1:7420
  State:            reachable
  Replica:          router-0, leads (term 3)
  Table:            revision 61, 200ms old
  Manifest:         revision 55 taken into account, 2 behind the registry
  Namespaces:       55
  Without a shard:  1
  Agents:           2 connected

Shards
  NAME      STATUS    AGENT        AIRFLOW   NAMESPACES   DAGS   SLOTS   STARTS/H
  shard-a   Unknown   never seen   <none>             0      0       0          0
"
        );
    }

    #[test]
    fn a_router_that_is_away_is_said() {
        let mut status = status();
        status.router = Router { endpoints: vec!["http://x:1".into()], ..Router::default() };
        status.shards.clear();
        let text = text(&status, Paint::PLAIN);
        assert!(
            text.ends_with("Router\n  Endpoints:  http://x:1\n  State:      not reachable\n"),
            "{text}"
        );
    }
}
