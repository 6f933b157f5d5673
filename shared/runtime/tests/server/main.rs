//! A small service behind the whole stack: sockets, TLS, limits, authentication, shutdown.

mod clients;
mod connections;
mod identity;
mod limits;
mod serving;
mod shutdown;
mod support;
