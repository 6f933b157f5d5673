//! What is known of a request besides its message: its id and who sent it.
//!
//! The server puts one [`Context`] into the extensions of every request and keeps its id with the
//! task that works on it, so that an error deep inside can be logged with the id.

use std::{fmt, net::SocketAddr, sync::Arc};

use http::HeaderValue;

use crate::{auth::Principal, status::Failure};

/// Header, and gRPC metadata key, of the request id.
pub const HEADER: &str = "x-request-id";

/// Longest request id that is accepted from a client.
const ID_MAX_BYTES: usize = 64;

tokio::task_local! {
    static CURRENT: RequestId;
}

/// Identifies a request in logs and answers. Visible ASCII, 1 to 64 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId(Id);

#[derive(Clone, PartialEq, Eq)]
enum Id {
    /// The caller's.
    Given(HeaderValue),
    /// One of our own, in hexadecimal: most requests have one and few are asked for it.
    Own([u8; 24]),
}

impl RequestId {
    /// A client's id, if it is one that can be logged safely.
    pub fn from_header(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let fits = (1..=ID_MAX_BYTES).contains(&bytes.len());
        (fits && bytes.iter().all(u8::is_ascii_graphic)).then(|| Self(Id::Given(value.clone())))
    }

    /// The id of request number `request` on the connection `connection`.
    pub(crate) fn numbered(connection: u64, request: u32) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 24];
        let bytes = connection.to_be_bytes().into_iter().chain(request.to_be_bytes());
        for (digits, byte) in text.chunks_exact_mut(2).zip(bytes) {
            digits[0] = HEX[usize::from(byte >> 4)];
            digits[1] = HEX[usize::from(byte & 0xf)];
        }
        Self(Id::Own(text))
    }

    /// Whether the caller chose it.
    pub(crate) fn is_given(&self) -> bool {
        matches!(self.0, Id::Given(_))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Id::Given(value) => value.to_str().unwrap_or_default(),
            Id::Own(text) => std::str::from_utf8(text).unwrap_or_default(),
        }
    }

    /// The id as the value of [`HEADER`].
    pub fn header(&self) -> HeaderValue {
        let mut value = match &self.0 {
            Id::Given(value) => value.clone(),
            Id::Own(text) => {
                HeaderValue::from_bytes(text).expect("hexadecimal digits are a header value")
            }
        };
        // Every id is different: a sensitive value stays out of the HPACK table of the connection.
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The id of the request that the current task works on.
pub fn current_id() -> Option<RequestId> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Runs `future` as part of the request `id`.
pub fn within<F: Future>(
    id: RequestId,
    future: F,
) -> tokio::task::futures::TaskLocalFuture<RequestId, F> {
    CURRENT.scope(id, future)
}

/// Runs `body` as part of the request `id`.
pub(crate) fn within_sync<R>(id: RequestId, body: impl FnOnce() -> R) -> R {
    CURRENT.sync_scope(id, body)
}

/// What the server knows of a request. Found in the request's extensions.
#[derive(Clone, Debug)]
pub struct Context {
    /// The request's id.
    pub id: RequestId,
    /// Who sent it.
    pub principal: Arc<Principal>,
    /// The other end of the connection, where it is a socket with an address.
    pub peer: Option<SocketAddr>,
}

impl Context {
    /// The context of a request that came without a network, such as in tests of a handler.
    pub fn local(principal: Principal) -> Self {
        Self { id: RequestId::numbered(0, 0), principal: Arc::new(principal), peer: None }
    }
}

/// Reaches the [`Context`] of a request.
pub trait ContextExt {
    /// The context that the server attached.
    fn context(&self) -> Result<&Context, Failure>;

    /// Who sent the request.
    fn principal(&self) -> Result<&Arc<Principal>, Failure> {
        self.context().map(|context| &context.principal)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the request has no context: it did not come through the server of airfleet-runtime")]
struct NoContext;

impl<T> ContextExt for tonic::Request<T> {
    fn context(&self) -> Result<&Context, Failure> {
        self.extensions().get::<Context>().ok_or_else(|| Failure::internal(NoContext))
    }
}

impl<T> ContextExt for http::Request<T> {
    fn context(&self) -> Result<&Context, Failure> {
        self.extensions().get::<Context>().ok_or_else(|| Failure::internal(NoContext))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbered_in_hex() {
        let id = RequestId::numbered(0xdead_beef_0102_0304, 0x1f);
        assert_eq!(id.as_str(), "deadbeef010203040000001f");
    }

    #[test]
    fn only_harmless_ids_are_taken_over() {
        let take = |bytes: &[u8]| RequestId::from_header(&HeaderValue::from_bytes(bytes).unwrap());
        assert_eq!(take(b"abc-123").unwrap().as_str(), "abc-123");
        assert!(take(b"").is_none());
        assert!(take(b"a b").is_none());
        assert!(take("ü".as_bytes()).is_none());
        assert!(take(&[b'a'; 65]).is_none());
    }

    #[tokio::test]
    async fn a_task_knows_its_request() {
        assert_eq!(current_id(), None);
        let id = RequestId::numbered(1, 2);
        let seen = within(id.clone(), async { current_id() }).await;
        assert_eq!(seen, Some(id));
    }

    #[test]
    fn a_request_without_context_is_a_fault() {
        let error = tonic::Request::new(()).principal().unwrap_err();
        assert_eq!(error.kind(), crate::status::Kind::Internal);
    }
}
