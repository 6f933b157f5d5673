//! `airfleet rebalance`: freeze rebalancing, or lift that.

use airfleet_proto::placement::v1::{
    FreezeRebalancingRequest, GetRebalancingRequest, Rebalancing, UnfreezeRebalancingRequest,
};
use clap::Subcommand;

use crate::{
    args::TextOrJson,
    document,
    error::{Exit, Result},
    session::Session,
};

/// What to do with rebalancing.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep every plan from being carried out further; moves under way end
    #[command(after_help = "Examples:
  airfleet rebalance freeze --reason 'month-end close'")]
    Freeze {
        /// Why; shown to whoever finds it frozen
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: TextOrJson,
    },
    /// Lift the freeze; plans that stopped are applied again by hand
    #[command(after_help = "Examples:
  airfleet rebalance unfreeze")]
    Unfreeze {
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: TextOrJson,
    },
    /// Say whether it is frozen, and how often namespaces came back to where they had been
    #[command(after_help = "Examples:
  airfleet rebalance status
  airfleet rebalance status -o json | jq .thrashed")]
    Status {
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: TextOrJson,
    },
}

/// Does it.
pub async fn run(session: &mut Session<'_>, command: Command) -> Result<Exit> {
    let (answer, output) = match command {
        Command::Freeze { reason, output } => {
            let request = FreezeRebalancingRequest { reason };
            let answer = session.placement.call("cannot freeze rebalancing", async |mut client| {
                client.freeze_rebalancing(request.clone()).await
            });
            (answer.await?, output)
        }
        Command::Unfreeze { output } => {
            let answer =
                session.placement.call("cannot unfreeze rebalancing", async |mut client| {
                    client.unfreeze_rebalancing(UnfreezeRebalancingRequest {}).await
                });
            (answer.await?, output)
        }
        Command::Status { output } => {
            let answer = session.placement.call("cannot ask the router", async |mut client| {
                client.get_rebalancing(GetRebalancingRequest {}).await
            });
            (answer.await?, output)
        }
    };
    match output {
        TextOrJson::Text => session.screen.line(&text(&answer))?,
        TextOrJson::Json => {
            let value = serde_json::json!({
                "frozen": answer.frozen,
                "actor": answer.actor,
                "reason": answer.reason,
                "thrashed": answer.thrashed,
            });
            session.screen.print(&document::json(&value)?)?;
        }
    }
    Ok(Exit::Ok)
}

fn text(answer: &Rebalancing) -> String {
    let Rebalancing { frozen, actor, reason, thrashed, .. } = answer;
    let state = if *frozen {
        format!("rebalancing is frozen by {actor}: {reason}")
    } else {
        "rebalancing is not frozen".to_owned()
    };
    format!("{state}; {thrashed} namespaces came back to where they had been")
}
