//! What a command says when it fails: one block with what failed, why, and what to do next.
//!
//! Every failure of the command line is an [`Error`], also those that come from a service: the
//! hint for each stable reason is chosen here and nowhere else.

use std::fmt::Write as _;

use airfleet_runtime::status::{Problem, reason};
use tonic::Code;

use crate::screen::{Paint, Tone};

/// How a command ended, as the exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything is as it was asked to be.
    Ok,
    /// Nothing failed, but the answer is "no": a difference was found, or something has no shard.
    Negative,
}

impl Exit {
    /// The exit code; failures have 1.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Negative => 2,
        }
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Block>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Block {
    what: String,
    details: Vec<String>,
    hint: Option<String>,
    request_id: Option<String>,
    is_passing: bool,
    is_not_found: bool,
    is_refused: bool,
    reason: String,
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// `what` failed; lower case, no full stop.
    pub fn new(what: impl Into<String>) -> Self {
        Self(Box::new(Block { what: what.into(), ..Block::default() }))
    }

    /// What an error and all that led to it say, after `what` was attempted.
    pub fn caused(what: impl std::fmt::Display, cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = format!("{what}: {cause}");
        let mut source = cause.source();
        while let Some(cause) = source {
            let more = cause.to_string();
            // Some libraries repeat their source in their own text.
            if !text.contains(&more) {
                let _ = write!(text, ": {more}");
            }
            source = cause.source();
        }
        Self::new(text)
    }

    /// What the service at `endpoint` answered when `what` was attempted.
    pub fn answered(what: &str, endpoint: &str, problem: &Problem) -> Self {
        let several = problem.violations.len() + problem.preconditions.len() > 1;
        let message = match problem.message.as_str() {
            _ if several => "it was refused for several reasons".to_owned(),
            "" => problem.code.description().to_lowercase(),
            message => message.to_owned(),
        };
        let code = if problem.reason.is_empty() {
            String::new()
        } else {
            format!(" ({})", problem.reason)
        };
        let mut error = Self::new(format!("{what}: {message}{code}"));
        if several {
            error.0.details = details(problem);
        }
        error.0.hint = hint(endpoint, problem);
        error.0.request_id.clone_from(&problem.request_id);
        error.0.is_passing = problem.is_transient();
        error.0.is_not_found = problem.code == Code::NotFound;
        error.0.is_refused = problem.code == Code::FailedPrecondition;
        error.0.reason.clone_from(&problem.reason);
        error
    }

    /// One more line of what is wrong.
    #[must_use]
    pub fn detail(mut self, line: impl Into<String>) -> Self {
        self.0.details.push(line.into());
        self
    }

    /// Replaces what failed.
    #[must_use]
    pub fn with_what(mut self, what: impl Into<String>) -> Self {
        self.0.what = what.into();
        self
    }

    /// Replaces the lines of what is wrong.
    #[must_use]
    pub fn with_details(mut self, lines: Vec<String>) -> Self {
        self.0.details = lines;
        self
    }

    /// What to do next.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.0.hint = Some(text.into());
        self
    }

    /// Whether the same may succeed later without anybody changing anything.
    pub fn is_passing(&self) -> bool {
        self.0.is_passing
    }

    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.0.is_not_found
    }

    /// Whether the state of the fleet does not allow it.
    pub fn is_refused(&self) -> bool {
        self.0.is_refused
    }

    /// The stable reason that a service gave; empty where none did.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// What to do next, where nothing better is known.
    #[must_use]
    pub fn or_hint(mut self, text: &str) -> Self {
        self.0.hint.get_or_insert_with(|| text.to_owned());
        self
    }

    /// The block as it is shown, with a line end.
    pub fn render(&self, paint: Paint) -> String {
        let Block { what, details, hint, request_id, .. } = &*self.0;
        let mut text = format!("{} {what}\n", paint.tone(Tone::Bad, "error:"));
        for detail in details {
            let _ = writeln!(text, "  {}", detail.replace('\n', "\n    "));
        }
        if let Some(hint) = hint {
            let _ = writeln!(text, "{} {hint}", paint.tone(Tone::Strong, "hint:"));
        }
        if let Some(id) = request_id {
            let _ = writeln!(text, "{}", paint.tone(Tone::Dim, &format!("request id: {id}")));
        }
        text
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl std::error::Error for Error {}

/// Everything that was refused, a line each.
fn details(problem: &Problem) -> Vec<String> {
    let mut lines: Vec<String> =
        problem.violations.iter().map(|v| format!("{}: {}", v.field, v.message)).collect();
    lines.extend(problem.preconditions.iter().map(|p| format!("{}: {}", p.subject, p.description)));
    if let Some(line) = omitted(problem) {
        lines.push(line);
    }
    lines
}

/// How many violations the service left out of its answer, as a line.
pub fn omitted(problem: &Problem) -> Option<String> {
    let count = problem.metadata.get(airfleet_runtime::status::OMITTED_METADATA)?;
    Some(format!("and {count} more"))
}

/// What to do about a service's answer.
fn hint(endpoint: &str, problem: &Problem) -> Option<String> {
    let hint = match problem.reason.as_str() {
        reason::CREDENTIALS_MISSING => {
            "say who you are: --token-file FILE or AIRFLEET__TOKEN_FILE, or --cert and --key".into()
        }
        reason::TOKEN_INVALID | reason::TOKEN_EXPIRED => {
            "ask whoever runs the fleet for a new token; `airfleet config view --show-origin` says \
             which one was sent"
                .into()
        }
        reason::CERTIFICATE_UNKNOWN => {
            "the certificate names nobody that the service knows; check --cert".into()
        }
        reason::PERMISSION_DENIED => "ask a fleet operator to do it, or for a role that may".into(),
        reason::ETAG_MISMATCH => "it was changed meanwhile; look at it again and repeat".into(),
        reason::NOT_LEADER => "no replica leads at the moment; try again in a few seconds".into(),
        reason::MESSAGE_TOO_LARGE => "give less at once, such as fewer files".into(),
        reason::RATE_LIMITED | reason::OVERLOADED | reason::TOO_MANY_STREAMS => {
            "wait a moment and try again".into()
        }
        "NAMESPACE_MOVING" => {
            "`airfleet move list` says how far it is; --timeout says how long to wait for it".into()
        }
        "CHANGE_IN_DOUBT" => {
            "look at the run or the DAG in its shard's Airflow before you repeat it".into()
        }
        "" => transport_hint(endpoint, problem)?,
        _ => return None,
    };
    Some(hint)
}

/// What to do where nothing that speaks Airfleet answered.
fn transport_hint(endpoint: &str, problem: &Problem) -> Option<String> {
    let message = problem.message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let hint = if says(&[
        "unknownissuer",
        "unknown issuer",
        "invalid peer certificate",
        "certificate",
    ]) {
        format!("the certificate of {endpoint} was not accepted; name its authority with --ca FILE")
    } else if says(&["corrupt message", "invalidcontenttype", "wrong version"]) {
        format!("{endpoint} does not seem to speak TLS; try http://")
    } else if says(&["frame with invalid size", "http2 error", "protocol error", "broken pipe"]) {
        format!("{endpoint} answered, but not as a plain gRPC service; does it want https://?")
    } else {
        match problem.code {
            Code::Unavailable => format!(
                "is the control plane running at {endpoint}? start one with `airfleet dev`, or say \
                 where it is with --registry and --router, or AIRFLEET__REGISTRY__ENDPOINTS and \
                 AIRFLEET__ROUTER__ENDPOINTS"
            ),
            Code::DeadlineExceeded => {
                format!("{endpoint} did not answer in time; try again or give --request-timeout")
            }
            Code::Unimplemented => format!(
                "{endpoint} does not know this call: is it the right service, and as new as this \
                 command?"
            ),
            _ => return None,
        }
    };
    Some(hint)
}

#[cfg(test)]
mod tests {
    use airfleet_runtime::status::{Failure, FieldViolation};
    use tonic::Status;

    use super::*;

    const ENDPOINT: &str = "http://127.0.0.1:7410";

    fn shown(status: &Status) -> String {
        Error::answered("cannot list namespaces", ENDPOINT, &Problem::from(status))
            .render(Paint::PLAIN)
    }

    #[test]
    fn a_refusal_shows_every_violation_and_what_to_do() {
        let status: Status = Failure::invalid(vec![
            FieldViolation::new("namespace.name", "INVALID_NAME", "is too short"),
            FieldViolation::new("namespace.owners", "REQUIRED", "at least one owner is needed"),
        ])
        .into();
        assert_eq!(
            shown(&status),
            "error: cannot list namespaces: it was refused for several reasons (INVALID_ARGUMENT)\n  \
             namespace.name: is too short\n  \
             namespace.owners: at least one owner is needed\n"
        );
    }

    #[test]
    fn nobody_there_says_how_to_start_one() {
        let text = shown(&Status::unavailable("tcp connect error: Connection refused"));
        assert!(text.contains("airfleet dev"), "{text}");
        assert!(text.contains("AIRFLEET__REGISTRY__ENDPOINTS"), "{text}");
        assert!(text.contains(ENDPOINT), "{text}");
    }

    #[test]
    fn tls_trouble_names_the_flag() {
        let text = shown(&Status::unavailable("invalid peer certificate: UnknownIssuer"));
        assert!(text.contains("--ca"), "{text}");
        let text =
            shown(&Status::unavailable("received corrupt message of type InvalidContentType"));
        assert!(text.contains("http://"), "{text}");
    }

    #[test]
    fn missing_credentials_name_the_flags() {
        let failure = Failure::unauthenticated(reason::CREDENTIALS_MISSING, "who are you");
        assert!(shown(&failure.into()).contains("--token-file"));
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: inner")]
        struct Repeats(#[source] std::fmt::Error);
        let error = Error::caused("cannot try", &Repeats(std::fmt::Error));
        assert_eq!(error.to_string(), format!("cannot try: outer: inner: {}", std::fmt::Error));
    }
}
