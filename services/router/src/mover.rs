//! Who carries single moves out.
//!
//! What carries a plan out knows nothing of how a namespace changes shards; it asks this. Invariant:
//! a move goes by its key (plan, position and attempt), so that beginning it twice begins it once, and a
//! leader that takes over finds what the last one began.

use airfleet_domain::ids::{NamespaceName, ShardName};
use futures::future::BoxFuture;

/// A move to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// The plan, the position in it, and from the second time on how often it was begun.
    pub(crate) key: String,
    /// The namespace.
    pub(crate) namespace: NamespaceName,
    /// Where it is; none where it has no shard.
    pub(crate) from: Option<ShardName>,
    /// Where it goes.
    pub(crate) to: ShardName,
    /// Who asked for it, and why.
    pub(crate) reason: String,
}

/// How far a move is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nobody has begun it.
    Unknown,
    /// It is under way.
    Running,
    /// It was made.
    Done,
    /// It came to nothing, and why.
    Failed(String),
}

/// Carries moves out.
pub(crate) trait Mover: Send + Sync + std::fmt::Debug {
    /// Begins a move, or answers that it has begun. An error says why it is not begun.
    fn begin(&self, order: Order) -> BoxFuture<'_, Result<(), String>>;

    /// How far a move is.
    fn look<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Look>;

    /// All moves under way, from and to, whoever asked for them.
    fn under_way(&self) -> Vec<(ShardName, ShardName)>;
}
