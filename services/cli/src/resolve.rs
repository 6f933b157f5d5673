//! `airfleet resolve`: which shard owns a DAG or a namespace.

use std::{fs::File, io};

use airfleet_proto::router::v1::{
    BatchResolveRequest, BatchResolveResponse, ResolveRequest, ResolveResponse,
    resolve_request::Target,
};
use clap::ValueHint;
use serde::Serialize;
use tonic::Code;

use crate::{
    args::Form,
    document::{self, ASSIGNED, List, MOVING, state_name},
    error::{Error, Exit, Result},
    files::{STDIN, text_of},
    human,
    screen::Tone,
    session::Session,
    table::{Cell, Table, or_none},
};

/// Most dag_ids of one request.
const BATCH_MAX: usize = 10_000;

/// Arguments of `resolve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  airfleet resolve payments.daily
  airfleet resolve payments.daily search__index -o json
  airfleet resolve --namespace payments
  airfleet resolve -f dag_ids.txt -o name
  airflow dags list -o plain | awk 'NR > 1 {print $1}' | airfleet resolve -f -

The namespace with the longest prefix of a dag_id owns it.

Exit codes: 0 each is owned by a shard, 1 failed, 2 some are owned by none.")]
pub struct Args {
    /// dag_ids, or namespaces with --namespace
    #[arg(value_name = "DAG_ID", required_unless_present = "filename")]
    names: Vec<String>,
    /// What is given are namespaces
    #[arg(short, long)]
    namespace: bool,
    /// File with one a line, or - for standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    filename: Option<String>,
    /// Output form; name prints shard/NAME, or <none>
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

/// What one name resolves to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Resolution {
    /// The dag_id; left out where a namespace was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    dag_id: Option<String>,
    /// The namespace; empty where none owns it.
    namespace: String,
    /// The shard; empty where none owns it.
    shard: String,
    /// Where the shard is reached; empty where not stated.
    url: String,
    /// `Assigned`, `Unplaced`, `Released`, or `NotOwned` where no namespace owns the dag_id.
    state: &'static str,
    /// Generation of the assignment.
    generation: i64,
}

const NOT_OWNED: &str = "NotOwned";

/// How fresh the answers are.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Freshness {
    /// Revision of the table that answered.
    revision: i64,
    /// How long ago the table was last known to be current.
    age_ms: i64,
}

#[derive(Serialize)]
struct One<'a> {
    #[serde(flatten)]
    resolution: &'a Resolution,
    #[serde(flatten)]
    freshness: Freshness,
}

#[derive(Serialize)]
struct Many {
    #[serde(flatten)]
    list: List<Resolution>,
    #[serde(flatten)]
    freshness: Freshness,
}

/// Does it.
pub async fn run(session: &mut Session<'_>, args: Args) -> Result<Exit> {
    let mut names = args.names;
    let is_list = names.len() != 1 || args.filename.is_some();
    if let Some(file) = &args.filename {
        names.extend(from_file(file)?);
    }
    if names.is_empty() {
        return Err(Error::new("nothing to resolve: the file names no dag_id"));
    }
    let (resolutions, freshness) = if args.namespace {
        one_by_one(session, names, Target::Namespace).await?
    } else if names.len() == 1 {
        one_by_one(session, names, Target::DagId).await?
    } else {
        in_batches(session, &names).await?
    };
    let is_all_owned = resolutions.iter().all(|r| matches!(r.state, ASSIGNED | MOVING));
    let screen = &mut *session.screen;
    match args.output {
        Form::Table | Form::Wide => {
            let table = table(&resolutions, args.namespace, args.output == Form::Wide);
            screen.print(&table.render(screen.paint(), ""))?;
            if args.output == Form::Wide {
                let age = human::short_span(freshness.age_ms);
                screen.note(&format!("Table at revision {}, {age} old.", freshness.revision));
            }
        }
        Form::Name => {
            for resolution in &resolutions {
                screen.line(&match resolution.shard.as_str() {
                    "" => "<none>".to_owned(),
                    shard => format!("shard/{shard}"),
                })?;
            }
        }
        Form::Json | Form::Yaml => {
            let as_yaml = args.output == Form::Yaml;
            let text = match resolutions.as_slice() {
                [resolution] if !is_list => {
                    let one = One { resolution, freshness };
                    if as_yaml { document::yaml(&one)? } else { document::json(&one)? }
                }
                _ => {
                    let many = Many { list: List::new("ResolutionList", resolutions), freshness };
                    if as_yaml { document::yaml(&many)? } else { document::json(&many)? }
                }
            };
            screen.print(&text)?;
        }
    }
    Ok(if is_all_owned { Exit::Ok } else { Exit::Negative })
}

/// Names in a file, one a line; blank lines and comments are left out.
fn from_file(file: &str) -> Result<Vec<String>> {
    let text = if file == STDIN {
        text_of("standard input", io::stdin())?
    } else {
        let open = File::open(file)
            .map_err(|error| Error::caused(format!("cannot read {file}"), &error))?;
        text_of(file, open)?
    };
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

async fn one_by_one(
    session: &Session<'_>,
    names: Vec<String>,
    target: fn(String) -> Target,
) -> Result<(Vec<Resolution>, Freshness)> {
    let mut resolutions = Vec::with_capacity(names.len());
    let mut freshness = Freshness::default();
    for name in names {
        let target = target(name.clone());
        let dag_id = matches!(target, Target::DagId(_)).then(|| name.clone());
        let request = ResolveRequest { target: Some(target) };
        let answer =
            session.router.try_call(async |mut client| client.resolve(request.clone()).await).await;
        match answer {
            Ok(answer) => {
                freshness = Freshness { revision: answer.revision, age_ms: answer.age_ms };
                resolutions.push(resolution(dag_id, answer));
            }
            Err(problem) if problem.code == Code::NotFound => resolutions.push(Resolution {
                namespace: if dag_id.is_some() { String::new() } else { name },
                dag_id,
                state: NOT_OWNED,
                ..Resolution::default()
            }),
            Err(problem) => {
                return Err(session.router.refused(&format!("cannot resolve {name:?}"), &problem));
            }
        }
    }
    Ok((resolutions, freshness))
}

fn resolution(dag_id: Option<String>, answer: ResolveResponse) -> Resolution {
    Resolution {
        dag_id,
        state: state_name(answer.state()),
        namespace: answer.namespace,
        shard: answer.shard,
        url: answer.endpoints.unwrap_or_default().url,
        generation: answer.generation,
    }
}

async fn in_batches(
    session: &Session<'_>,
    names: &[String],
) -> Result<(Vec<Resolution>, Freshness)> {
    let mut resolutions = Vec::with_capacity(names.len());
    let mut freshness = Freshness::default();
    for batch in names.chunks(BATCH_MAX) {
        let request = BatchResolveRequest { dag_ids: batch.to_vec() };
        let answer = session
            .router
            .call("cannot resolve the dag_ids", async |mut client| {
                client.batch_resolve(request.clone()).await
            })
            .await?;
        freshness = Freshness { revision: answer.revision, age_ms: answer.age_ms };
        resolutions.extend(expand(batch, &answer)?);
    }
    Ok((resolutions, freshness))
}

/// One resolution for each dag_id of a batch.
fn expand(names: &[String], answer: &BatchResolveResponse) -> Result<Vec<Resolution>> {
    let wrong =
        || Error::new("the router's answer contradicts itself; is it newer than this command?");
    if answer.route_numbers.len() != names.len() {
        return Err(wrong());
    }
    let one = |(name, number): (&String, &u32)| {
        let dag_id = Some(name.clone());
        if *number == 0 {
            return Ok(Resolution { dag_id, state: NOT_OWNED, ..Resolution::default() });
        }
        let route = answer.routes.get(*number as usize - 1).ok_or_else(wrong)?;
        let shard = match route.shard_number {
            0 => None,
            number => Some(answer.shards.get(number as usize - 1).ok_or_else(wrong)?),
        };
        Ok(Resolution {
            dag_id,
            namespace: route.namespace.clone(),
            shard: shard.map(|shard| shard.shard.clone()).unwrap_or_default(),
            url: shard
                .and_then(|shard| shard.endpoints.as_ref())
                .map(|endpoints| endpoints.url.clone())
                .unwrap_or_default(),
            state: state_name(route.state()),
            generation: route.generation,
        })
    };
    names.iter().zip(&answer.route_numbers).map(one).collect()
}

fn table(resolutions: &[Resolution], by_namespace: bool, wide: bool) -> Table {
    let mut header = vec!["NAMESPACE", "SHARD", "STATE", "URL"];
    if !by_namespace {
        header.insert(0, "DAG_ID");
    }
    if wide {
        header.push("GENERATION ");
    }
    let mut table = Table::new(header);
    for resolution in resolutions {
        let tone = match resolution.state {
            ASSIGNED => Tone::Good,
            NOT_OWNED => Tone::Bad,
            _ => Tone::Warn,
        };
        let mut cells: Vec<Cell> = Vec::new();
        if !by_namespace {
            cells.push(resolution.dag_id.as_deref().unwrap_or_default().into());
        }
        cells.extend([
            or_none(&resolution.namespace),
            or_none(&resolution.shard),
            Cell::toned(tone, resolution.state),
            or_none(&resolution.url),
        ]);
        if wide {
            cells.push(resolution.generation.to_string().into());
        }
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use airfleet_proto::router::v1::{AssignmentState, Endpoints, Route, RouteShard};

    use super::*;
    use crate::screen::Paint;

    fn answer() -> BatchResolveResponse {
        let route = |namespace: &str, shard_number, state: AssignmentState| Route {
            namespace: namespace.into(),
            shard_number,
            generation: 1,
            state: state.into(),
            retry_after_ms: 0,
        };
        BatchResolveResponse {
            route_numbers: vec![2, 0, 1, 2],
            routes: vec![
                route("search", 0, AssignmentState::Unplaced),
                route("payments", 1, AssignmentState::Assigned),
            ],
            shards: vec![RouteShard {
                shard: "shard-a".into(),
                endpoints: Some(Endpoints { url: "http://127.0.0.1:8080".into() }),
            }],
            revision: 7,
            age_ms: 3,
        }
    }

    fn names() -> Vec<String> {
        ["pay.a", "ghost.b", "search.c", "pay.d"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_batch_is_spread_over_its_names() {
        let resolutions = expand(&names(), &answer()).unwrap();
        assert_eq!(
            table(&resolutions, false, false).render(Paint::PLAIN, ""),
            "\
DAG_ID     NAMESPACE   SHARD     STATE      URL
pay.a      payments    shard-a   Assigned   http://127.0.0.1:8080
ghost.b    <none>      <none>    NotOwned   <none>
search.c   search      <none>    Unplaced   <none>
pay.d      payments    shard-a   Assigned   http://127.0.0.1:8080
"
        );
    }

    #[test]
    fn an_answer_that_points_nowhere_is_refused() {
        let mut wrong = answer();
        wrong.route_numbers[0] = 9;
        assert!(expand(&names(), &wrong).is_err());
        assert!(expand(&names()[1..], &answer()).is_err());
    }

    #[test]
    fn scripts_get_every_field() {
        let resolutions = expand(&names(), &answer()).unwrap();
        let many = Many {
            list: List::new("ResolutionList", resolutions),
            freshness: Freshness { revision: 7, age_ms: 3 },
        };
        let value = serde_json::to_value(&many).unwrap();
        assert_eq!(value["kind"], "ResolutionList");
        assert_eq!(value["items"][1]["state"], "NotOwned");
        assert_eq!(value["items"][1]["shard"], "");
        assert_eq!(value["revision"], 7);
    }
}
