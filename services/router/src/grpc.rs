//! The wire: each RPC checks who calls and what is asked, and hands on.

mod agents;
mod dags;
mod events;
mod moves;
mod page;
mod placement;
mod resolve;
mod router;
mod watch;

pub(crate) use self::{
    agents::AgentApi, dags::DagsApi, events::EventWatches, moves::MovesApi,
    placement::PlacementApi, router::RouterApi, watch::Watches,
};
