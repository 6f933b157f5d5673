//! `airfleet capacity`: how much room is left.

use std::fmt::Write as _;

use airfleet_domain::resources::Resources;
use airfleet_proto::placement::v1::{Capacity, GetCapacityRequest};
use serde_json::json;

use crate::{
    args::TextOrJson,
    document,
    error::{Exit, Result},
    human,
    screen::{Paint, Tone},
    session::Session,
    table::{Cell, Table},
};

/// Failure domains shown to people.
const LOSSES_SHOWN: usize = 20;

/// Arguments of `capacity`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  airfleet capacity
  airfleet capacity -o json | jq '.losses[] | select(.misfits > 0)'

FITS counts namespaces of the size that is typical of those that ask for the same shards. Exit code
2 where the fleet could not absorb the loss of some failure domain.")]
pub struct Args {
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: TextOrJson,
}

/// Does it.
pub async fn run(session: &mut Session<'_>, args: Args) -> Result<Exit> {
    let capacity = session
        .placement
        .call("cannot tell the capacity", async |mut client| {
            client.get_capacity(GetCapacityRequest {}).await
        })
        .await?;
    match args.output {
        TextOrJson::Text => {
            let text = text(&capacity, session.screen.paint());
            session.screen.print(&text)?;
        }
        TextOrJson::Json => session.screen.print(&document::json(&value(&capacity))?)?,
    }
    Ok(if capacity.certified { Exit::Ok } else { Exit::Negative })
}

fn text(capacity: &Capacity, paint: Paint) -> String {
    let mut text = String::new();
    let mut rooms =
        Table::new(["ASKS FOR", "SHARDS ", "NAMESPACES ", "FITS ", "TYPICAL", "FULL IN"]);
    for room in &capacity.rooms {
        let typical = Resources::from(room.typical.unwrap_or_default());
        let full = if room.fills_first.is_empty() {
            Cell::toned(Tone::Dim, "<not growing>")
        } else {
            format!("{} days ({})", room.full_in_days, room.fills_first).into()
        };
        rooms.row([
            room.asks.as_str().into(),
            room.shards.to_string().into(),
            room.namespaces.to_string().into(),
            if room.fits == 0 { Cell::toned(Tone::Bad, "0") } else { room.fits.to_string().into() },
            human::resources(&typical).into(),
            full,
        ]);
    }
    if rooms.is_empty() {
        text.push_str("no namespaces are registered\n");
    } else {
        text.push_str(&rooms.render(paint, ""));
    }
    if capacity.growth_days > 0.0 {
        let _ = writeln!(text, "growth told from {:.1} days", capacity.growth_days);
    }
    text.push('\n');
    let mut losses = Table::new(["IF LOST", "SHARDS ", "NAMESPACES ", "NO ROOM FOR ", "SUCH AS"]);
    for loss in capacity.losses.iter().take(LOSSES_SHOWN) {
        let example = loss.examples.first();
        losses.row([
            loss.failure_domain.as_str().into(),
            loss.shards.to_string().into(),
            loss.namespaces.to_string().into(),
            match loss.misfits {
                0 => Cell::toned(Tone::Good, "0"),
                misfits => Cell::toned(Tone::Bad, misfits.to_string()),
            },
            example.map(|e| format!("{}: {}", e.namespace, e.reason)).unwrap_or_default().into(),
        ]);
    }
    text.push_str(&losses.render(paint, ""));
    let more = capacity.losses.len().saturating_sub(LOSSES_SHOWN);
    if more > 0 {
        let _ = writeln!(text, "… and {more} more");
    }
    let verdict = if capacity.certified {
        "N+1: the fleet could lose any one failure domain"
    } else {
        "N+1: no"
    };
    let _ = writeln!(text, "{verdict}");
    text
}

fn value(capacity: &Capacity) -> serde_json::Value {
    let resources = |amounts: Option<airfleet_proto::common::v1::Resources>| {
        Resources::from(amounts.unwrap_or_default())
    };
    json!({
        "rooms": capacity.rooms.iter().map(|room| json!({
            "asks": room.asks,
            "shards": room.shards,
            "namespaces": room.namespaces,
            "capacity": resources(room.capacity),
            "load": resources(room.load),
            "typical": resources(room.typical),
            "fits": room.fits,
            "fillsFirst": room.fills_first,
            "fullInDays": room.full_in_days,
        })).collect::<Vec<_>>(),
        "losses": capacity.losses.iter().map(|loss| json!({
            "failureDomain": loss.failure_domain,
            "shards": loss.shards,
            "namespaces": loss.namespaces,
            "misfits": loss.misfits,
            "examples": loss.examples.iter().map(|example| json!({
                "namespace": example.namespace, "reason": example.reason,
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "certified": capacity.certified,
        "growthDays": capacity.growth_days,
    })
}
