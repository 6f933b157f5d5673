//! Celery over Redis: each queue is a list, heartbeats are published.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use airfleet_runtime::config::ConnectionUrl;
use futures::StreamExt as _;
use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};
use tokio_util::task::AbortOnDropHandle;

use super::{Error, Load, Options, workers::Workers};

/// Kombu keeps messages of a priority other than 0 in lists of their own, named so.
const PRIORITIES: [&str; 4] = ["", "\u{6}\u{16}3", "\u{6}\u{16}6", "\u{6}\u{16}9"];

/// A quiet subscription is probed this often; a dead one is found in twice the time.
const PING_INTERVAL: Duration = Duration::from_secs(15);

pub(super) struct Redis {
    client: Client,
    connect_timeout: Duration,
    connection: Option<MultiplexedConnection>,
    queues: Vec<String>,
    unacked: String,
    workers: Arc<Workers>,
    _listener: AbortOnDropHandle<()>,
}

impl Redis {
    pub(super) fn new(
        url: &ConnectionUrl,
        options: &Options,
        workers: Arc<Workers>,
    ) -> Result<Self, Error> {
        // Celery's options after the question mark mean nothing to Redis.
        let text = url.expose().split('?').next().unwrap_or_default();
        let client = Client::open(text)
            .map_err(|error| Error::Url { url: url.to_string(), why: error.to_string() })?;
        let prefix = &options.key_prefix;
        let database = client.get_connection_info().redis_settings().db();
        // All events of workers: heartbeats, arrivals and departures.
        let pattern = format!("{}/{database}.celeryev/worker.*", escape(prefix));
        let listener = {
            let (client, workers, limit) =
                (client.clone(), workers.clone(), options.connect_timeout);
            super::keep_listening(workers.clone(), move || {
                listen(client.clone(), pattern.clone(), workers.clone(), limit)
            })
        };
        Ok(Self {
            client,
            connect_timeout: options.connect_timeout,
            connection: None,
            queues: options.queues.iter().map(|queue| format!("{prefix}{queue}")).collect(),
            unacked: format!("{prefix}unacked"),
            workers,
            _listener: AbortOnDropHandle::new(tokio::spawn(listener)),
        })
    }

    pub(super) async fn load(&mut self) -> Result<Load, Error> {
        // Taken out, so that a connection that failed, or hangs and is given up on, is not used
        // again.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut pipeline = redis::pipe();
        for queue in &self.queues {
            for priority in PRIORITIES {
                pipeline.llen(format!("{queue}{priority}"));
            }
        }
        pipeline.hlen(&self.unacked);
        let mut lengths: Vec<i64> = pipeline
            .query_async(&mut connection)
            .await
            .map_err(|source| Error::Redis { doing: "read the queues", source })?;
        self.connection = Some(connection);
        let unacked_messages = lengths.pop();
        Ok(Load {
            queued_messages: lengths.into_iter().fold(0, i64::saturating_add),
            unacked_messages,
            live_workers: self.workers.live(Instant::now()),
        })
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Error> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(self.connect_timeout));
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|source| Error::Redis { doing: "connect", source })
    }
}

async fn listen(
    client: Client,
    pattern: String,
    workers: Arc<Workers>,
    limit: Duration,
) -> Result<(), Error> {
    let timed_out = |doing| Error::Redis {
        doing,
        source: std::io::Error::from(std::io::ErrorKind::TimedOut).into(),
    };
    let subscribed = tokio::time::timeout(limit, async {
        let mut subscription = client.get_async_pubsub().await?;
        subscription.psubscribe(&pattern).await?;
        Ok(subscription)
    });
    let (mut sink, mut events) = subscribed
        .await
        .map_err(|_| timed_out("subscribe"))?
        .map_err(|source| Error::Redis { doing: "subscribe", source })?
        .split();
    workers.listening(Instant::now());
    let mut pings = tokio::time::interval(PING_INTERVAL);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => workers.hear(event.get_payload_bytes(), Instant::now()),
                None => return Ok(()),
            },
            _ = pings.tick() => {
                // The answer waits behind events, which somebody must take meanwhile.
                let ping = tokio::time::timeout(PING_INTERVAL, sink.ping::<redis::Value>());
                tokio::pin!(ping);
                loop {
                    tokio::select! {
                        answer = &mut ping => {
                            answer
                                .map_err(|_| timed_out("ping"))?
                                .map_err(|source| Error::Redis { doing: "ping", source })?;
                            break;
                        }
                        event = events.next() => match event {
                            Some(event) => workers.hear(event.get_payload_bytes(), Instant::now()),
                            None => return Ok(()),
                        },
                    }
                }
            }
        }
    }
}

/// Text that stands for itself in a pattern of Redis.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
