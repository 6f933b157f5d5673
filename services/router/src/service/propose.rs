//! Proposing plans without being asked.
//!
//! Every so often the leader looks at how its fleet stands. What is overloaded or without a shard is
//! proposed for at once; a shard above the target only when it was there several looks in a row, so
//! that what passes by itself moves nothing. A proposal is a plan like any other: nothing moves
//! until somebody applies it. While one is open no other is made.

use std::sync::Arc;

use airfleet_domain::placement::history::Hysteresis;
use airfleet_runtime::lifecycle::Shutdown;

use super::{CreatePlan, Error, Purpose, Service};
use crate::{chain, store::PlanState};

/// Who proposes.
const ACTOR: &str = "airfleet";

/// Plans that are looked through for one that is open.
const LOOKED_THROUGH: u32 = 100;

/// How a fleet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Some shard is above the soft limit, and evening out could help.
    pub(crate) overloaded: bool,
    /// Some shard is above the target.
    pub(crate) hot: bool,
}

/// What is to be proposed after a look.
pub(crate) fn decide(standing: Standing, hysteresis: &mut Hysteresis) -> Option<Purpose> {
    let lasted = hysteresis.look(standing.hot);
    if standing.overloaded {
        Some(Purpose::Emergency)
    } else if lasted {
        Some(Purpose::Rebalance)
    } else {
        None
    }
}

/// Looks and proposes until shutdown.
pub(crate) async fn propose(service: Arc<Service>, shutdown: Shutdown) {
    let settings = service.plans_config();
    if settings.propose_every.is_zero() {
        shutdown.triggered().await;
        return;
    }
    let mut hysteresis = Hysteresis::new(settings.propose_after);
    loop {
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(settings.propose_every) => {}
        }
        match service.look(&mut hysteresis).await {
            Ok(Some(plan)) => tracing::warn!(plan, "proposes a plan; airfleet plan show tells it"),
            Ok(None) => {}
            // Whoever does not lead begins anew when it does.
            Err(Error::NotLeading(_)) => hysteresis.reset(),
            Err(error) => tracing::warn!(error = %chain(&error), "cannot propose a plan"),
        }
    }
}

impl Service {
    /// Looks once. Answers the name of the plan that it proposes.
    pub(crate) async fn look(&self, hysteresis: &mut Hysteresis) -> Result<Option<String>, Error> {
        let leader = self.leader()?;
        let standing = leader.fleet().standing();
        let Some(purpose) = decide(standing, hysteresis) else { return Ok(None) };
        let plans = leader.tools.store.plans(LOOKED_THROUGH).await?;
        let open = plans.iter().any(|kept| {
            let is_open =
                matches!(kept.state, PlanState::Ready | PlanState::Applying | PlanState::Stopped);
            is_open && (kept.actor == ACTOR || kept.state == PlanState::Applying)
        });
        if open || leader.frozen().is_some() {
            return Ok(None);
        }
        let ask = CreatePlan {
            name: String::new(),
            purpose,
            cost_max: 0,
            moves_max: 0,
            seed: 1,
            time_limit: None,
            actor: ACTOR.to_owned(),
        };
        let proposed = self.propose_plan(ask).await?;
        if proposed.is_some() {
            hysteresis.reset();
        }
        Ok(proposed)
    }
}
