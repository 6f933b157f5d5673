//! The wire types of Airfleet, generated from the `.proto` files beside this crate.
//!
//! The generated code is checked in, so that a build needs no protobuf compiler;
//! `tests/generated.rs` fails when it is stale and `make proto` writes it anew. Services convert
//! these types at their edge and never pass them further in.

pub mod convert;

/// Values that all services share.
#[allow(missing_docs, clippy::pedantic, clippy::all)]
pub mod common {
    /// `airfleet.common.v1`.
    pub mod v1 {
        include!("gen/airfleet.common.v1.rs");
    }
}
/// The registry's API.
#[allow(missing_docs, clippy::pedantic, clippy::all)]
pub mod registry {
    /// `airfleet.registry.v1`.
    pub mod v1 {
        include!("gen/airfleet.registry.v1.rs");
    }
}
/// The router's API.
#[allow(missing_docs, clippy::pedantic, clippy::all)]
pub mod router {
    /// `airfleet.router.v1`.
    pub mod v1 {
        include!("gen/airfleet.router.v1.rs");
    }
}
/// Moves, served by the router.
#[allow(missing_docs, clippy::pedantic, clippy::all)]
pub mod moves {
    /// `airfleet.moves.v1`.
    pub mod v1 {
        include!("gen/airfleet.moves.v1.rs");
    }
}
/// Changes to DAGs and their runs, served by the router.
#[allow(missing_docs, clippy::pedantic, clippy::all)]
pub mod dags {
    /// `airfleet.dags.v1`.
    pub mod v1 {
        include!("gen/airfleet.dags.v1.rs");
    }
}
/// Plans and explanations of placement, served by the router.
#[allow(missing_docs, clippy::pedantic, clippy::all)]
pub mod placement {
    /// `airfleet.placement.v1`.
    pub mod v1 {
        include!("gen/airfleet.placement.v1.rs");
    }
}
/// The stream between agents and the router.
#[allow(missing_docs, clippy::pedantic, clippy::all)]
pub mod agent {
    /// `airfleet.agent.v1`.
    pub mod v1 {
        include!("gen/airfleet.agent.v1.rs");
    }
}

/// All of the above as an encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");
