//! One request, from its headers to the end of its answer.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::body::Incoming;
use tonic::{Code, Status};
use tower::Service as _;
use tracing::Span;

use super::{
    Shared,
    admission::Permit,
    body::{Answer, Limited},
    identity::Caller,
    methods::{Method, code_name},
};
use crate::{
    request::{self, Context, RequestId},
    status::{Failure, Kind, reason},
    telemetry,
};

/// What ends a request from outside.
pub(super) type Interruption = Pin<Box<dyn Future<Output = Failure> + Send>>;

/// One connection, as its requests see it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) peer: std::net::SocketAddr,
    pub(super) caller: Caller,
    requests: AtomicU32,
    at_work: AtomicUsize,
}

impl Connection {
    pub(super) fn new(
        shared: Arc<Shared>,
        id: u64,
        peer: std::net::SocketAddr,
        caller: Caller,
    ) -> Self {
        Self { shared, id, peer, caller, requests: AtomicU32::new(0), at_work: AtomicUsize::new(0) }
    }

    /// How many requests came, and how many of them are at work. For telling whether it is idle.
    pub(super) fn activity(&self) -> (u32, usize) {
        (self.requests.load(Ordering::Relaxed), self.at_work.load(Ordering::Relaxed))
    }
}

/// The books of one request. They are closed when it is dropped, whatever became of the request.
pub(super) struct Call {
    pub(super) method: Arc<Method>,
    pub(super) id: RequestId,
    pub(super) span: Span,
    connection: Arc<Connection>,
    started: Instant,
    code: Option<Code>,
    permit: Option<Permit>,
}

impl Call {
    fn begin(connection: Arc<Connection>, method: Arc<Method>, id: RequestId) -> Self {
        connection.at_work.fetch_add(1, Ordering::Relaxed);
        method.opened();
        let started = Instant::now();
        Self { method, id, span: Span::none(), connection, started, code: None, permit: None }
    }

    /// Notes with what code the answer ends.
    pub(super) fn ends_with(&mut self, code: Code) {
        self.code = Some(code);
    }

    /// Answers with `failure`.
    fn refuse(mut self, failure: Failure, is_grpc: bool) -> Response<Answer> {
        self.code = Some(failure.kind().code());
        let mut response = if is_grpc {
            request::within_sync(self.id.clone(), || failure.into_status())
                .into_http::<axum::body::Body>()
        } else {
            http_failure(&failure)
        };
        response.headers_mut().insert(request::HEADER, self.id.header());
        response.map(|body| Answer::new(body, self, None))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Nobody said how it ended: the client went away.
        let code = self.code.unwrap_or(Code::Cancelled);
        let elapsed = self.started.elapsed();
        self.method.answered(code, elapsed);
        self.connection.at_work.fetch_sub(1, Ordering::Relaxed);
        if !self.span.is_disabled() {
            self.span.record("rpc.grpc.status_code", code as i32);
            if matches!(code, Code::Unknown | Code::Internal | Code::DataLoss) {
                self.span.record("otel.status_code", "ERROR");
            }
        }
        tracing::debug!(
            target: telemetry::RPC_TARGET,
            parent: &self.span,
            request_id = self.id.as_str(),
            service = self.method.service,
            method = self.method.name,
            code = code_name(code),
            elapsed_us = elapsed.as_micros() as u64,
            "answered"
        );
        drop(self.permit.take());
    }
}

/// Serves one request.
pub(super) async fn serve(
    connection: Arc<Connection>,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let shared = Arc::clone(&connection.shared);
    let number = connection.requests.fetch_add(1, Ordering::Relaxed);
    let method = Arc::clone(shared.methods.find(request.uri().path()));
    let is_grpc = is_grpc(request.headers());
    let id = request
        .headers()
        .get(request::HEADER)
        .and_then(RequestId::from_header)
        .unwrap_or_else(|| RequestId::numbered(connection.id, number));

    let mut call = Call::begin(Arc::clone(&connection), Arc::clone(&method), id.clone());
    let context = match admit(&connection, &method, request.headers(), &mut call) {
        Ok(context) => context,
        Err(failure) => return Ok(call.refuse(failure, is_grpc)),
    };
    call.span = telemetry::rpc_span(&method.service, &method.name, &context, request.headers());
    let timeout = request.headers().get("grpc-timeout").and_then(grpc_timeout);
    let mut interrupted = (method.is_stream || timeout.is_some())
        .then(|| interruption(&shared, method.is_stream, timeout));

    request.extensions_mut().insert(context);
    let larger = shared.larger.iter().find(|(path, _)| *path == request.uri().path());
    let max = shared.limits.max_message_bytes.max(larger.map_or(0, |(_, bytes)| *bytes));
    let reading = method.is_stream.then(|| interruption(&shared, true, None));
    let request = request.map(|body| Limited::new(body, max, is_grpc, reading));
    let answered = shared.router.clone().call(request);
    let mut answered = pin!(request::within(id, answered));
    let outcome = std::future::poll_fn(|cx| {
        let entered = call.span.enter();
        let polled = catch_unwind(AssertUnwindSafe(|| answered.as_mut().poll(cx)));
        drop(entered);
        match (polled, &mut interrupted) {
            (Ok(Poll::Ready(Ok(response))), _) => Poll::Ready(Ok(response)),
            (Ok(Poll::Ready(Err(never))), _) => match never {},
            (Ok(Poll::Pending), Some(interrupted)) => interrupted.as_mut().poll(cx).map(Err),
            (Ok(Poll::Pending), None) => Poll::Pending,
            (Err(panic), _) => Poll::Ready(Err(Failure::internal(panic_message(&*panic)))),
        }
    })
    .await;
    Ok(match outcome {
        Ok(mut response) => {
            if !is_grpc {
                call.ends_with(code_of(response.status()));
            } else if let Some(code) = response.headers().get(Status::GRPC_STATUS) {
                call.ends_with(Code::from_bytes(code.as_bytes()));
            }
            // An answer that is as expected is not asked after under an id that its caller did not
            // choose, and writing and reading the header would cost 3% of a small request.
            let code = call.code.unwrap_or(Code::Ok);
            if call.id.is_given() || !is_grpc || code != Code::Ok {
                response.headers_mut().insert(request::HEADER, call.id.header());
            }
            response.map(|body| Answer::new(body, call, interrupted))
        }
        Err(failure) => call.refuse(failure, is_grpc),
    })
}

/// Finds out who calls, and whether there is room.
fn admit(
    connection: &Connection,
    method: &Method,
    headers: &HeaderMap,
    call: &mut Call,
) -> Result<Context, Failure> {
    let shared = &connection.shared;
    let identity = if method.is_open {
        shared.authenticator.nobody()
    } else {
        let identity =
            shared.authenticator.identify(&connection.caller, headers, &shared.admission)?;
        identity.count(call.started)?;
        identity
    };
    call.permit = Some(shared.admission.admit(method.is_stream)?);
    Ok(Context {
        id: call.id.clone(),
        principal: Arc::clone(&identity.principal),
        peer: Some(connection.peer),
    })
}

/// What ends a request from outside: the caller's deadline, and for streams, which need not end by
/// themselves, the end of the node.
fn interruption(shared: &Shared, is_stream: bool, timeout: Option<Duration>) -> Interruption {
    let stopping = is_stream.then(|| shared.shutdown.token());
    Box::pin(async move {
        let deadline = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        let stopped = async {
            match stopping {
                Some(stopping) => stopping.cancelled_owned().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = deadline => Failure::new(
                Kind::DeadlineExceeded,
                reason::DEADLINE_EXCEEDED,
                "the deadline that the caller set has passed",
            ),
            () = stopped => Failure::unavailable(
                "the node is stopping; connect to another one, or again in a moment",
                Duration::from_secs(1),
            )
            .with_reason(reason::SHUTTING_DOWN),
        }
    })
}

/// A `grpc-timeout`: up to eight digits and a unit.
fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// A failure for a client that speaks plain HTTP.
pub(super) fn http_failure(failure: &Failure) -> Response<axum::body::Body> {
    let body = serde_json::json!({
        "code": code_name(failure.kind().code()),
        "reason": failure.reason(),
        "message": failure.message(),
    });
    let mut response = Response::new(axum::body::Body::from(format!("{body}\n")));
    *response.status_mut() = failure.http();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(delay) = failure.retry_after() {
        headers.insert(http::header::RETRY_AFTER, delay.as_secs().max(1).into());
    }
    if failure.kind() == Kind::Unauthenticated {
        headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The code under which an HTTP answer is counted.
fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        ..=399 => Code::Ok,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::Aborted,
        429 => Code::ResourceExhausted,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        500.. => Code::Internal,
        400..=499 => Code::InvalidArgument,
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    format!("the handler panicked: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        let read = |text: &str| grpc_timeout(&HeaderValue::from_str(text).unwrap());
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("2H"), Some(Duration::from_hours(2)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "5", "S", "123456789S", "-1S", "1x", "+1S"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
