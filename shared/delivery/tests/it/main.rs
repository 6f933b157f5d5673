//! The roller on real folders and repositories: what is delivered, what is refused, what survives.

mod folder;
mod git;
mod hostile;
mod killed;
mod objects;
mod rig;
