//! The bodies of requests and answers, watched as they pass.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tonic::{Code, Status};

use super::call::{Call, Interruption};
use crate::{
    request,
    status::{Failure, Kind, reason},
};

/// Length of what stands before each message of a gRPC body: a flag and the message's length.
const PREFIX_BYTES: usize = 5;

/// The body of a request, which fails when it grows past the limit: each message of a gRPC body,
/// or the whole of another one. It also fails when it is interrupted: the task that reads it may
/// live longer than the answer, and would keep the connection open.
pub(super) struct Limited {
    inner: Incoming,
    max: usize,
    left: Left,
    interruption: Option<Interruption>,
}

enum Left {
    /// Bytes that another body may still have.
    Total(usize),
    /// What has been read of the prefix of a message, and what is left of the message.
    Message { prefix: [u8; PREFIX_BYTES], filled: usize, bytes: usize },
}

/// Why a request's body cannot be read.
#[derive(Debug)]
pub(super) enum Error {
    Connection(hyper::Error),
    // As the source of this error, tonic finds the status and answers with it.
    Refused(Box<Status>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(_) => f.write_str("the connection failed"),
            Self::Refused(_) => f.write_str("the request is not read further"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connection(error) => Some(error),
            Self::Refused(status) => Some(&**status),
        }
    }
}

impl Limited {
    pub(super) fn new(
        inner: Incoming,
        max: usize,
        is_grpc: bool,
        interruption: Option<Interruption>,
    ) -> Self {
        let left = if is_grpc {
            Left::Message { prefix: [0; PREFIX_BYTES], filled: 0, bytes: 0 }
        } else {
            Left::Total(max)
        };
        Self { inner, max, left, interruption }
    }

    fn check(&mut self, data: &Bytes) -> Result<(), Error> {
        match &mut self.left {
            Left::Total(left) => match left.checked_sub(data.len()) {
                Some(rest) => *left = rest,
                None => return Err(too_large("the body of the request", self.max)),
            },
            Left::Message { prefix, filled, bytes } => {
                let mut data = &data[..];
                while data.has_remaining() {
                    if *bytes > 0 {
                        let taken = data.len().min(*bytes);
                        data.advance(taken);
                        *bytes -= taken;
                        continue;
                    }
                    let taken = data.len().min(PREFIX_BYTES - *filled);
                    data.copy_to_slice(&mut prefix[*filled..*filled + taken]);
                    *filled += taken;
                    if *filled == PREFIX_BYTES {
                        *filled = 0;
                        let [_, length @ ..] = *prefix;
                        *bytes = u32::from_be_bytes(length) as usize;
                        if *bytes > self.max {
                            let what = format!("a message of {bytes} bytes");
                            return Err(too_large(&what, self.max));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn refused(failure: Failure) -> Error {
    Error::Refused(Box::new(failure.into_status()))
}

fn too_large(what: &str, max: usize) -> Error {
    let failure = Failure::exhausted("request", format!("{what} is larger than {max} bytes"))
        .with_reason(reason::MESSAGE_TOO_LARGE)
        .with_metadata("max_message_bytes", max.to_string());
    refused(failure)
}

impl Body for Limited {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(interruption) = &mut self.interruption
            && let Poll::Ready(failure) = interruption.as_mut().poll(cx)
        {
            self.interruption = None;
            return Poll::Ready(Some(Err(refused(failure))));
        }
        Pin::new(&mut self.inner).poll_frame(cx).map(|frame| {
            Some(match frame? {
                Ok(frame) => match frame.data_ref().map(|data| self.check(data)) {
                    Some(Err(error)) => Err(error),
                    _ => Ok(frame),
                },
                Err(error) => Err(Error::Connection(error)),
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer. Notes how the answer ends, and ends it when it is interrupted.
pub(super) struct Answer {
    inner: axum::body::Body,
    call: Option<Call>,
    interruption: Option<Interruption>,
}

impl Answer {
    pub(super) fn new(
        inner: axum::body::Body,
        call: Call,
        interruption: Option<Interruption>,
    ) -> Self {
        Self { inner, call: Some(call), interruption }
    }

    /// The end of the answer, as trailers of its own making.
    fn interrupt(&mut self, failure: Failure) -> Frame<Bytes> {
        let status = failure.into_status();
        if let Some(call) = &mut self.call {
            call.ends_with(status.code());
        }
        self.inner = axum::body::Body::empty();
        self.interruption = None;
        self.call = None;
        let mut trailers = HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            trailers.insert(Status::GRPC_STATUS, (status.code() as i32).into());
        }
        Frame::trailers(trailers)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(call) = &mut this.call else { return Poll::Ready(None) };
        // Before the body, which may never have a pause.
        if let Some(interruption) = &mut this.interruption
            && let Poll::Ready(failure) = interruption.as_mut().poll(cx)
        {
            return Poll::Ready(Some(Ok(this.interrupt(failure))));
        }
        let inner = Pin::new(&mut this.inner);
        let polled = if call.method.is_stream {
            let _entered = call.span.enter();
            request::within_sync(call.id.clone(), || inner.poll_frame(cx))
        } else {
            inner.poll_frame(cx)
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref()
                    && let Some(code) = trailers.get(Status::GRPC_STATUS)
                {
                    call.ends_with(Code::from_bytes(code.as_bytes()));
                }
            }
            Poll::Ready(Some(Err(_))) => call.ends_with(Kind::Internal.code()),
            Poll::Ready(None) => this.call = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.call.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
