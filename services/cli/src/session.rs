//! What a command works with: the screen and the services.

use serde::Serialize;

use crate::{
    args::{Connection, DoneForm},
    client::{self, Dags, Moves, Placement, Registry, Router},
    config, document,
    error::Result,
    screen::Screen,
};

/// The screen and the services.
#[derive(Debug)]
pub struct Session<'a> {
    /// Where output goes.
    pub screen: &'a mut Screen,
    /// The registry.
    pub registry: Registry,
    /// The router.
    pub router: Router,
    /// The router, asked about placement.
    pub placement: Placement,
    /// The router, asked about moves.
    pub moves: Moves,
    /// The router, asked to change DAGs.
    pub dags: Dags,
}

impl<'a> Session<'a> {
    /// Loads the settings. Nothing is connected before it is used.
    pub fn start(screen: &'a mut Screen, flags: &Connection) -> Result<Self> {
        let settings = config::load(flags)?;
        let timeout = flags.request_timeout();
        Ok(Self {
            screen,
            registry: client::registry(&settings.value.registry(), timeout)?,
            router: client::router(&settings.value.router(), timeout)?,
            placement: client::placement(&settings.value.router(), timeout)?,
            moves: client::moves(&settings.value.router(), timeout)?,
            dags: client::dags(&settings.value.router(), timeout)?,
        })
    }

    /// Says that `done` was done to the object `id` (`namespace/payments`), or would be.
    pub fn done(
        &mut self,
        id: &str,
        done: &str,
        dry_run: bool,
        form: DoneForm,
        result: &impl Serialize,
    ) -> Result<()> {
        let text = match form {
            DoneForm::Text => format!("{id} {done}{}", if dry_run { " (dry run)" } else { "" }),
            DoneForm::Name => id.to_owned(),
            DoneForm::Json => document::json_line(result)?,
        };
        self.screen.line(&text)
    }
}
