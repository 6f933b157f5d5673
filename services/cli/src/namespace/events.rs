//! `airfleet namespace events`: what happened to a namespace and why, in the order of time.
//!
//! The registry's audit tells what was declared and by whom, the router what it decided and what the
//! agents saw. Neither knows the other's clock, so each event stands where its own time puts it.

use std::time::Duration;

use airfleet_proto::{
    registry::v1::{AuditEvent, ListAuditEventsRequest},
    router::v1::{ListNamespaceEventsRequest, WatchNamespaceEventsRequest},
};
use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use super::describe::changed_fields;
use crate::{
    args::TextOrJson,
    document::{self, List, roles::Event, timestamp},
    error::{Exit, Result},
    human,
    pages::PAGE,
    screen::{Paint, Screen, Tone},
    session::Session,
    table::{Cell, Table, or_none},
};

/// How often the audit is looked at while events are followed.
const AUDIT_EVERY: Duration = Duration::from_secs(2);
/// Pause before a lost watch is opened again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Arguments of `namespace events`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The namespace; may be gone
    name: String,
    /// Show at most so many, the latest
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only what somebody should look at
    #[arg(long)]
    warnings: bool,
    /// Go on and show what happens
    #[arg(long)]
    follow: bool,
    /// Output form; with --follow json prints an object a line
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: TextOrJson,
}

/// Does it.
pub(super) async fn run(session: &mut Session<'_>, args: Args) -> Result<Exit> {
    let Past { mut events, sequence, revision, missing } =
        past(session, &args.name, args.limit.into()).await?;
    if let Some(missing) = missing {
        session.screen.warn(&missing);
    }
    if args.warnings {
        events.retain(|event| event.warning);
    }
    let screen = &mut *session.screen;
    if !args.follow {
        match args.output {
            TextOrJson::Json => screen.print(&document::json(&List::new("EventList", events))?)?,
            TextOrJson::Text if events.is_empty() => {
                screen.note("Nothing is known to have happened.");
            }
            TextOrJson::Text => {
                let table = table(&events, Timestamp::now());
                screen.print(&table.render(screen.paint(), ""))?;
            }
        }
        return Ok(Exit::Ok);
    }
    for event in &events {
        show(screen, &args, event)?;
    }
    screen.flush()?;
    follow(session, &args, sequence, revision).await
}

/// What happened up to now.
pub(super) struct Past {
    /// The latest of both, oldest first.
    pub(super) events: Vec<Event>,
    /// What the router tells after this one is new.
    sequence: i64,
    /// What the registry tells after this one is new.
    revision: i64,
    /// Why a part is missing.
    missing: Option<String>,
}

/// Asks both. That the registry is away, or does not let this caller see its audit, leaves only
/// that out.
pub(super) async fn past(session: &Session<'_>, name: &str, limit: i32) -> Result<Past> {
    let declared = audit(session, name, limit).await;
    let request = ListNamespaceEventsRequest {
        namespace: name.to_owned(),
        page_size: limit,
        page_token: String::new(),
    };
    let decided = session
        .router
        .call(&format!("cannot read the events of {name:?}"), async |mut client| {
            client.list_namespace_events(request.clone()).await
        })
        .await;
    let mut missing = None;
    let (declared, decided) = match (declared, decided) {
        (Err(error), Ok(decided)) => {
            missing = Some(format!("{error}; showing what the router knows"));
            (Vec::new(), Some(decided))
        }
        // One that nobody knows is a wrong name; one that is gone has its audit.
        (Ok(audit), Err(error)) if error.is_not_found() && audit.is_empty() => {
            return Err(error.hint("`airfleet namespace list` shows all names"));
        }
        (Ok(audit), Err(error)) if error.is_not_found() => (audit, None),
        (declared, decided) => (declared?, Some(decided?)),
    };
    let revision = declared.iter().filter_map(|event| event.revision).max().unwrap_or_default();
    let sequence = decided.as_ref().map_or(0, |decided| decided.sequence);
    let decided = decided.into_iter().flat_map(|decided| decided.events).map(Event::from);
    let mut events: Vec<Event> = declared.into_iter().chain(decided).collect();
    events.sort_by_key(|event| (event.time, event.sequence));
    let surplus = events.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
    events.drain(..surplus);
    Ok(Past { events, sequence, revision, missing })
}

/// The latest of the audit, newest first.
async fn audit(session: &Session<'_>, name: &str, limit: i32) -> Result<Vec<Event>> {
    let request = ListAuditEventsRequest {
        page_size: limit.min(PAGE),
        kind: "namespace".into(),
        name: name.to_owned(),
        ..Default::default()
    };
    let answer = session
        .registry
        .call("cannot read the audit", async |mut client| {
            client.list_audit_events(request.clone()).await
        })
        .await?;
    Ok(answer.events.into_iter().map(declared).collect())
}

fn declared(event: AuditEvent) -> Event {
    let changed = changed_fields(event.before.as_ref(), event.after.as_ref());
    let what =
        if changed.is_empty() { String::new() } else { format!(": {}", human::list(&changed, 5)) };
    let reason =
        if event.reason.is_empty() { String::new() } else { format!(" ({})", event.reason) };
    let by = if event.actor.is_empty() { "somebody" } else { &event.actor };
    let (code, verb) = match event.action.as_str() {
        "create" => ("MANIFEST_CREATED", "registered"),
        "delete" => ("MANIFEST_DELETED", "deleted"),
        _ => ("MANIFEST_UPDATED", "changed"),
    };
    Event {
        time: event.time.and_then(timestamp),
        namespace: event.name,
        source: "registry".into(),
        code: code.into(),
        message: format!("{verb} by {by}{what}{reason}"),
        actor: event.actor,
        revision: Some(event.revision),
        ..Event::default()
    }
}

/// Shows what happens from now on, until the reader is gone.
async fn follow(
    session: &mut Session<'_>,
    args: &Args,
    mut sequence: i64,
    mut revision: i64,
) -> Result<Exit> {
    let mut look = interval(AUDIT_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let request =
            WatchNamespaceEventsRequest { namespace: args.name.clone(), resume_sequence: sequence };
        let opened = session
            .router
            .open("cannot follow events", async |mut client| {
                client.watch_namespace_events(request.clone()).await
            })
            .await;
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(error) => {
                session.screen.warn(&format!("{error}; trying again"));
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
        };
        loop {
            if session.screen.is_closed() {
                return Ok(Exit::Ok);
            }
            tokio::select! {
                event = stream.message() => match event {
                    Ok(Some(event)) => {
                        sequence = event.sequence;
                        show(session.screen, args, &event.into())?;
                    }
                    Ok(None) | Err(_) => break,
                },
                _ = look.tick() => {
                    // A registry that is away keeps back only its own part.
                    let Ok(mut news) = audit(session, &args.name, PAGE).await else { continue };
                    news.retain(|event| event.revision.is_some_and(|at| at > revision));
                    news.reverse();
                    for event in news {
                        revision = event.revision.unwrap_or(revision);
                        show(session.screen, args, &event)?;
                    }
                }
            }
            session.screen.flush()?;
        }
        session.screen.warn("lost the router; resuming");
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

fn show(screen: &mut Screen, args: &Args, event: &Event) -> Result<()> {
    if args.warnings && !event.warning {
        return Ok(());
    }
    let line = match args.output {
        TextOrJson::Json => document::json_line(event)?,
        TextOrJson::Text => line(event, screen.paint()),
    };
    screen.line(&line)
}

fn line(event: &Event, paint: Paint) -> String {
    let time = event.time.map(human::time).unwrap_or_default();
    let tone = if event.warning { Tone::Warn } else { Tone::Strong };
    let at = if event.shard.is_empty() { String::new() } else { format!(" [{}]", event.shard) };
    let message: String =
        event.message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{time}  {}{at}  {message}", paint.tone(tone, &event.code))
}

/// Events as rows.
pub(super) fn table(events: &[Event], now: Timestamp) -> Table {
    let mut table = Table::new(["AGE", "FROM", "SHARD", "EVENT", "WHAT"]);
    for event in events {
        let tone = if event.warning { Tone::Warn } else { Tone::Plain };
        table.row([
            event.time.map(|time| human::age(time, now)).unwrap_or_default().into(),
            event.source.as_str().into(),
            or_none(&event.shard),
            Cell::toned(tone, event.code.as_str()),
            event.message.as_str().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_declared_is_told_in_words() {
        let event = AuditEvent {
            revision: 7,
            time: Some(prost_types::Timestamp { seconds: 1000, nanos: 0 }),
            actor: "alice".into(),
            action: "delete".into(),
            name: "pay".into(),
            reason: "shard-a was lost".into(),
            ..Default::default()
        };
        let told = declared(event);
        assert_eq!(told.code, "MANIFEST_DELETED");
        assert_eq!(told.message, "deleted by alice (shard-a was lost)");
        assert_eq!(
            line(&told, Paint::PLAIN),
            "1970-01-01 00:16:40 UTC  MANIFEST_DELETED  deleted by alice (shard-a was lost)"
        );
        let json = document::json_line(&told).unwrap();
        assert_eq!(
            json,
            r#"{"time":"1970-01-01T00:16:40Z","namespace":"pay","source":"registry","code":"MANIFEST_DELETED","message":"deleted by alice (shard-a was lost)","warning":false,"actor":"alice","revision":7}"#
        );
    }

    #[test]
    fn events_stand_in_rows() {
        let event = Event {
            time: Timestamp::from_second(1000).ok(),
            source: "agent".into(),
            code: "AF107".into(),
            shard: "shard-a".into(),
            message: "warned of\nDAG pay.daily".into(),
            warning: true,
            ..Event::default()
        };
        assert_eq!(
            table(&[event], Timestamp::from_second(1042).unwrap()).render(Paint::PLAIN, ""),
            "AGE   FROM    SHARD     EVENT   WHAT\n42s   agent   shard-a   AF107   warned of DAG pay.daily\n"
        );
    }
}
