//! What is in the way of a namespace, from whatever refused or failed.

use std::time::Duration;

use airfleet_delivery::Blame;
use tokio::time::timeout;

use crate::{
    airflow::{fence::gate::GateError, metadata},
    words::chain,
};

/// Time for what is asked of the metadata database at once, with waiting for a turn.
const METADATA_LIMIT: Duration = Duration::from_secs(30);

/// What is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Stable code.
    pub(super) code: String,
    /// One line: what is wrong and what to do.
    pub(super) message: String,
    /// Whether trying again soon is no use.
    pub(super) is_lasting: bool,
}

impl Problem {
    /// Somebody must change something first.
    pub(super) fn lasting(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), is_lasting: true }
    }

    /// Trying again may help.
    pub(super) fn passing(code: &str, message: impl Into<String>) -> Self {
        Self { is_lasting: false, ..Self::lasting(code, message) }
    }
}

/// Runs what needs the metadata database, within a limit.
pub(super) async fn limited<T, E: Into<Problem>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Problem> {
    match timeout(METADATA_LIMIT, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(metadata::Error::Late(METADATA_LIMIT).into()),
    }
}

impl From<metadata::Error> for Problem {
    fn from(error: metadata::Error) -> Self {
        use metadata::Error;

        let (code, is_lasting) = match &error {
            Error::Unsupported => ("METADATA_UNSUPPORTED", true),
            Error::UnknownRevision(_) => ("SCHEMA_UNKNOWN", true),
            Error::NotAirflow => ("METADATA_NOT_AIRFLOW", true),
            Error::NotAllowed { .. } => ("METADATA_NOT_ALLOWED", true),
            Error::Late(_) | Error::Database { .. } => ("METADATA_FAILED", false),
        };
        Self { code: code.to_owned(), message: chain(&error), is_lasting }
    }
}

impl From<GateError> for Problem {
    fn from(error: GateError) -> Self {
        match error {
            GateError::Metadata(error) => error.into(),
            GateError::Overtaken { .. } => Self::lasting("ORDER_OVERTAKEN", error.to_string()),
            GateError::NotKept { .. } => Self::lasting("FENCE_NOT_KEPT", error.to_string()),
        }
    }
}

impl From<airfleet_delivery::Error> for Problem {
    fn from(error: airfleet_delivery::Error) -> Self {
        Self {
            code: error.code().as_str().to_owned(),
            message: chain(&error),
            // Asking a source is cheap, and its owners wait for what they mended.
            is_lasting: error.code().blame() == Blame::Operator,
        }
    }
}

impl From<airfleet_transfer::Error> for Problem {
    fn from(error: airfleet_transfer::Error) -> Self {
        Self {
            code: error.code().to_owned(),
            message: chain(&error),
            is_lasting: !error.is_transient() && error.code() != "NOT_DRAINED",
        }
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::passing("LOCAL_IO", error.to_string())
    }
}
