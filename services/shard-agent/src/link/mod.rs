//! The stream to the router.
//!
//! Responsible for staying attached ([`attach`]), for what goes out ([`Outbox`]) and for what the
//! router asks for ([`Roles`]). Invariant: nothing that comes from a router whose term is lower
//! than the highest seen is obeyed, and what waits to be sent is never more than one state, the
//! newest. It must not know how a state comes about.

mod attach;
mod outbox;
mod roles;

pub use self::roles::LoadError;
pub(crate) use self::{
    attach::{Attachment, Identity},
    outbox::Outbox,
    roles::{Order, Orders, Roles},
};
