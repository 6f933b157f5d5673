//! Accepts connections and keeps them within bounds.
//!
//! A connection is half open until its TLS handshake is done and its client has sent the first
//! bytes of a request. Half-open connections have a deadline, and there is a limit on them; past
//! it, the oldest is closed. Whoever opens many and says nothing closes their own, while an honest
//! client is done before its turn comes.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use prometheus::{IntCounter, IntGauge};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinSet,
};

use super::{
    Shared,
    call::{Connection, serve},
};
use crate::{config::Limits, health::Readiness, metrics::Metrics, tls::ServerTls};

/// First bytes of a request: the preface of HTTP/2, or about the first line of HTTP/1.
const FIRST_BYTES: usize = 24;

/// Pause after a connection could not be accepted, for instance because no file is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is counted of connections.
#[derive(Debug)]
struct Counted {
    open: IntGauge,
    accepted: IntCounter,
    refused: IntCounter,
    evicted: IntCounter,
    timed_out: IntCounter,
    failed: IntCounter,
}

impl Counted {
    fn new(metrics: &Metrics) -> Self {
        let total = metrics.counters(
            "connections_total",
            "Connections: accepted; refused at the limit; evicted, timed_out or failed before \
             their first request.",
            &["outcome"],
        );
        Self {
            open: metrics.gauge("connections_open", "Connections that are open."),
            accepted: total.with_label_values(&["accepted"]),
            refused: total.with_label_values(&["refused"]),
            evicted: total.with_label_values(&["evicted"]),
            timed_out: total.with_label_values(&["timed_out"]),
            failed: total.with_label_values(&["failed"]),
        }
    }
}

/// Accepts connections until the node stops, then waits for those that are open to finish.
pub(super) struct Acceptor {
    shared: Arc<Shared>,
    tls: Option<ServerTls>,
    readiness: Readiness,
    counted: Arc<Counted>,
    half_open: Arc<HalfOpen>,
    slots: Arc<Semaphore>,
}

impl Acceptor {
    pub(super) fn new(
        shared: Arc<Shared>,
        tls: Option<ServerTls>,
        readiness: Readiness,
        metrics: &Metrics,
    ) -> Self {
        let half_open = HalfOpen { max: shared.limits.max_handshakes, entries: Mutex::default() };
        let slots = shared.limits.max_connections.min(Semaphore::MAX_PERMITS);
        Self {
            shared,
            tls,
            readiness,
            counted: Arc::new(Counted::new(metrics)),
            half_open: Arc::new(half_open),
            slots: Arc::new(Semaphore::new(slots)),
        }
    }

    pub(super) async fn run(self, listener: TcpListener) -> io::Result<()> {
        let shutdown = self.shared.shutdown.clone();
        let mut connections = JoinSet::new();
        // Request ids begin with the id of their connection: unlike those of other nodes and
        // earlier runs.
        let mut next_id = rand::random::<u64>() << 20;
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.triggered() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    next_id = next_id.wrapping_add(1);
                    self.admit(stream, peer, next_id, &mut connections);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::select! {
                        () = shutdown.triggered() => break,
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
        self.readiness.stop();
        drop(listener);
        while connections.join_next().await.is_some() {}
        Ok(())
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr, id: u64, connections: &mut JoinSet<()>) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            self.counted.refused.inc();
            return;
        };
        self.counted.accepted.inc();
        let (guard, evicted) = self.half_open.enter(id);
        let new = New {
            shared: Arc::clone(&self.shared),
            counted: Arc::clone(&self.counted),
            tls: self.tls.clone(),
            peer,
            id,
            evicted,
            slot,
        };
        connections.spawn(new.run(stream, guard));
    }
}

/// The connections that have not come to their first request.
#[derive(Debug)]
struct HalfOpen {
    max: usize,
    /// By id, and so the oldest first.
    entries: Mutex<BTreeMap<u64, oneshot::Sender<()>>>,
}

impl HalfOpen {
    /// Adds a connection and evicts the oldest one if there are too many. The receiver gets a
    /// message when the connection is evicted, and an error when the guard is dropped before.
    fn enter(self: &Arc<Self>, id: u64) -> (HalfOpenGuard, oneshot::Receiver<()>) {
        let (evict, evicted) = oneshot::channel();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(id, evict);
        if entries.len() > self.max.max(1)
            && let Some((_, oldest)) = entries.pop_first()
        {
            // Fails where that connection ends just now.
            let _ = oldest.send(());
        }
        (HalfOpenGuard { half_open: Arc::clone(self), id }, evicted)
    }
}

/// Takes a connection off the list when it is dropped.
struct HalfOpenGuard {
    half_open: Arc<HalfOpen>,
    id: u64,
}

impl Drop for HalfOpenGuard {
    fn drop(&mut self) {
        let mut entries = self.half_open.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(&self.id);
    }
}

/// A connection that was just accepted.
struct New {
    shared: Arc<Shared>,
    counted: Arc<Counted>,
    tls: Option<ServerTls>,
    peer: SocketAddr,
    id: u64,
    evicted: oneshot::Receiver<()>,
    slot: OwnedSemaphorePermit,
}

impl New {
    async fn run(mut self, stream: TcpStream, guard: HalfOpenGuard) {
        let counted = Arc::clone(&self.counted);
        counted.open.inc();
        if let Err(error) = set_options(&stream, &self.shared.limits) {
            // It is gone already, or works without.
            tracing::debug!(peer = %self.peer, %error, "socket options not set");
        }
        let deadline = tokio::time::Instant::now() + self.shared.limits.handshake_timeout;
        match self.tls.take() {
            None => self.serve(FirstBytes::new(stream, guard), None, deadline).await,
            Some(tls) => {
                let handshake = tls.acceptor().accept(stream);
                let shutdown = self.shared.shutdown.clone();
                let encrypted = tokio::select! {
                    done = handshake => match done {
                        Ok(encrypted) => Some(encrypted),
                        Err(error) => {
                            counted.failed.inc();
                            tracing::debug!(peer = %self.peer, %error, "TLS handshake failed");
                            None
                        }
                    },
                    Ok(()) = &mut self.evicted => { counted.evicted.inc(); None }
                    () = tokio::time::sleep_until(deadline) => { counted.timed_out.inc(); None }
                    () = shutdown.triggered() => None,
                };
                if let Some(encrypted) = encrypted {
                    let certificate = encrypted
                        .get_ref()
                        .1
                        .peer_certificates()
                        .and_then(|chain| chain.first())
                        .map(|certificate| certificate.as_ref().to_vec());
                    let io = FirstBytes::new(encrypted, guard);
                    self.serve(io, certificate.as_deref(), deadline).await;
                }
            }
        }
        counted.open.dec();
    }

    async fn serve<IO>(
        self,
        io: FirstBytes<IO>,
        certificate: Option<&[u8]>,
        deadline: tokio::time::Instant,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { shared, counted, peer, id, mut evicted, slot, .. } = self;
        let caller = shared.authenticator.caller(certificate, &shared.admission);
        let limits = shared.limits.clone();
        let shutdown = shared.shutdown.clone();
        let connection = Arc::new(Connection::new(shared, id, peer, caller));
        let served = Arc::clone(&connection);
        let builder = builder(&limits);
        let service = service_fn(move |request| serve(Arc::clone(&served), request));
        let mut http = pin!(builder.serve_connection(TokioIo::new(io), service));

        let mut idle = tokio::time::interval(limits.idle_timeout.max(Duration::from_millis(1)));
        idle.tick().await;
        let mut last = connection.activity();
        let (mut half_open, mut stopping) = (true, false);
        loop {
            tokio::select! {
                ended = &mut http => {
                    if let Err(error) = ended {
                        tracing::debug!(%peer, error = %error, "connection ended");
                    }
                    break;
                }
                eviction = &mut evicted, if half_open => match eviction {
                    Ok(()) => { counted.evicted.inc(); break; }
                    Err(_) => half_open = false,
                },
                () = tokio::time::sleep_until(deadline), if half_open => {
                    counted.timed_out.inc();
                    break;
                }
                () = shutdown.triggered(), if !stopping => {
                    stopping = true;
                    http.as_mut().graceful_shutdown();
                }
                _ = idle.tick() => {
                    let now = connection.activity();
                    if now.1 == 0 && now == last {
                        if stopping { break; }
                        stopping = true;
                        http.as_mut().graceful_shutdown();
                    }
                    last = now;
                }
            }
        }
        drop(slot);
    }
}

/// Has the kernel find out about peers that are gone: HTTP/2's own pings would do the same for a
/// lock and a look at the clock at every frame.
fn set_options(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    const PROBES: u32 = 3;
    // Answers are small and must not wait for more.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(limits.keepalive_interval)
        .with_interval((limits.keepalive_timeout / PROBES).max(Duration::from_secs(1)))
        .with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    // The same for a peer that leaves what was sent unacknowledged.
    socket.set_tcp_user_timeout(Some(limits.keepalive_interval + limits.keepalive_timeout))
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.concurrency_per_connection);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.handshake_timeout);
    builder
}

/// Counts the first bytes that a client sends, and drops the guard when they are there.
struct FirstBytes<IO> {
    io: IO,
    read: usize,
    guard: Option<HalfOpenGuard>,
}

impl<IO> FirstBytes<IO> {
    fn new(io: IO, guard: HalfOpenGuard) -> Self {
        Self { io, read: 0, guard: Some(guard) }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for FirstBytes<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.guard.is_none() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.read += buffer.filled().len() - before;
        if self.read >= FIRST_BYTES {
            self.guard = None;
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for FirstBytes<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
