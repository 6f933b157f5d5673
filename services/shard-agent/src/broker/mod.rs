//! What waits in a shard's Celery broker, and who lives to take it.
//!
//! Responsible for counting messages and workers over Redis or RabbitMQ. Nothing that tasks wait
//! in is changed: queues are looked at, never declared. It must not know Airflow.

mod rabbitmq;
mod redis;
mod workers;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use airfleet_runtime::config::ConnectionUrl;

use self::{rabbitmq::RabbitMq, redis::Redis, workers::Workers};

/// Longest pause between two attempts to listen for workers.
const LISTEN_BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What a broker holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Messages that wait in the queues. Count.
    pub queued_messages: i64,
    /// Messages that workers took and did not acknowledge. RabbitMQ does not tell over AMQP.
    /// After a worker was killed, Redis goes on counting what it had. Count.
    pub unacked_messages: Option<i64>,
    /// Workers that live; `None` where that is not known yet. Count.
    pub live_workers: Option<i64>,
}

/// Why a broker gave no answer. Never holds a password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL cannot be read.
    #[error("{url} is not the URL of a broker: {why}")]
    Url {
        /// The URL, its password hidden.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A broker of a kind that is not known.
    #[error("brokers of the kind {0:?} are not supported; redis, rediss, amqp and amqps are")]
    UnknownScheme(String),
    /// Redis refused or failed.
    #[error("cannot {doing}")]
    Redis {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: ::redis::RedisError,
    },
    /// RabbitMQ refused or failed.
    #[error("cannot {doing}")]
    RabbitMq {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: lapin::Error,
    },
}

impl Error {
    /// Whether it is about a kind of broker that this version does not know, and not a failure.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::UnknownScheme(_))
    }
}

/// What to look at.
#[derive(Debug, Clone)]
pub struct Options {
    /// Queues that the workers of the shard take messages from.
    pub queues: Vec<String>,
    /// Prefix of all keys in Redis (`global_keyprefix` of Celery's transport options).
    pub key_prefix: String,
    /// How long a worker counts as live after a heartbeat.
    pub worker_window: Duration,
    /// Time to connect.
    pub connect_timeout: Duration,
}

/// A broker. Listens for workers in the background for as long as it lives.
pub struct Broker(Kind);

enum Kind {
    Redis(Box<Redis>),
    RabbitMq(Box<RabbitMq>),
}

impl Broker {
    /// The broker at `url`. Connects when it is first used; must be called within a runtime.
    pub fn new(url: &ConnectionUrl, options: &Options) -> Result<Self, Error> {
        let workers = Arc::new(Workers::new(options.worker_window));
        match url.scheme() {
            "redis" | "rediss" => {
                Ok(Self(Kind::Redis(Box::new(Redis::new(url, options, workers)?))))
            }
            "amqp" | "amqps" | "pyamqp" => {
                Ok(Self(Kind::RabbitMq(Box::new(RabbitMq::new(url, options, workers)?))))
            }
            other => Err(Error::UnknownScheme(other.to_owned())),
        }
    }

    /// Looks once. May be dropped at any time.
    pub async fn load(&mut self) -> Result<Load, Error> {
        match &mut self.0 {
            Kind::Redis(redis) => redis.load().await,
            Kind::RabbitMq(rabbit) => rabbit.load().await,
        }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Redis(_) => "Redis",
            Kind::RabbitMq(_) => "RabbitMq",
        })
    }
}

/// Listens for workers again and again. `listen` returns when it can no longer hear; `Ok` where it
/// did hear for a while.
async fn keep_listening<F>(workers: Arc<Workers>, mut listen: impl FnMut() -> F)
where
    F: Future<Output = Result<(), Error>>,
{
    let mut backoff = crate::backoff::Backoff::new(Duration::from_millis(500), LISTEN_BACKOFF_MAX);
    loop {
        let began = Instant::now();
        let outcome = listen().await;
        workers.deaf();
        if began.elapsed() > LISTEN_BACKOFF_MAX {
            backoff.reset();
        }
        if let Err(error) = outcome {
            let error = crate::words::chain(&error);
            tracing::debug!(error, "not hearing the workers' heartbeats");
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}
