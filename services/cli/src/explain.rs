//! `airfleet explain`: why a namespace is where it is.

use airfleet_proto::placement::v1::{
    ExplainNamespaceRequest, Explanation, Level, PlacementVerdict, ShardAnswer,
};
use serde_json::{Value, json};

use crate::{
    args::TextOrJson,
    document,
    error::{Exit, Result},
    session::Session,
};

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  airfleet explain payments
  airfleet explain payments --shards 1000
  airfleet explain payments -o json | jq '.shards[] | select(.answer == \"THROTTLED\")'

Every shard answers YES (it would do now), NO (with all that speaks against it) or THROTTLED
(only something that passes by itself keeps it out). Exit code 2 where the namespace has no shard.")]
pub struct Args {
    /// The namespace
    #[arg(value_name = "NAMESPACE")]
    namespace: String,
    /// Shards to tell of, the best first
    #[arg(long, value_name = "COUNT", default_value_t = 20,
          value_parser = clap::value_parser!(i32).range(1..=10_000))]
    shards: i32,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: TextOrJson,
}

/// Does it.
pub async fn run(session: &mut Session<'_>, args: Args) -> Result<Exit> {
    let request =
        ExplainNamespaceRequest { namespace: args.namespace.clone(), shards_max: args.shards };
    let told = session
        .placement
        .call(&format!("cannot explain namespace/{}", args.namespace), async |mut client| {
            client.explain_namespace(request.clone()).await
        })
        .await?;
    let unplaced = told.verdict() == PlacementVerdict::Unplaced;
    match args.output {
        TextOrJson::Text => session.screen.print(&told.text)?,
        TextOrJson::Json => session.screen.print(&document::json(&explanation(&told))?)?,
    }
    Ok(if unplaced { Exit::Negative } else { Exit::Ok })
}

/// Levels of the objective.
pub fn levels(levels: &[Level]) -> Vec<Value> {
    let level = |level: &Level| {
        json!({
            "name": level.name,
            "before": level.before,
            "after": level.after,
            "change": level.change,
        })
    };
    levels.iter().map(level).collect()
}

fn explanation(told: &Explanation) -> Value {
    let word = |name: &'static str, prefix| name.strip_prefix(prefix).unwrap_or(name);
    json!({
        "namespace": told.namespace,
        "verdict": word(told.verdict().as_str_name(), "PLACEMENT_VERDICT_"),
        "shard": told.shard,
        "bestShard": told.best_shard,
        "levels": levels(&told.levels),
        "notMoved": told.not_moved,
        "eligible": told.eligible,
        "shardCount": told.shard_count,
        "obstacles": told.obstacles.iter().map(|o| json!({
            "code": o.code, "shards": o.shards, "fix": o.fix,
        })).collect::<Vec<_>>(),
        "bindingCode": told.binding_code,
        "bindingCount": told.binding_count,
        "counterfactuals": told.counterfactuals.iter().map(|one| json!({
            "dropped": one.dropped, "eligible": one.eligible,
        })).collect::<Vec<_>>(),
        "shards": told.shards.iter().map(|shard| json!({
            "shard": shard.shard,
            "answer": word(
                ShardAnswer::try_from(shard.answer).unwrap_or_default().as_str_name(),
                "SHARD_ANSWER_",
            ),
            "peakMillionths": shard.peak,
            "dimension": shard.dimension,
            "refusals": shard.refusals.iter().map(|refusal| json!({
                "code": refusal.code, "message": refusal.message,
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}
