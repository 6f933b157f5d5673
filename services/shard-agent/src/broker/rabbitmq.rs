//! Celery over RabbitMQ: queues are looked at passively, heartbeats come from the topic exchange
//! `celeryev` into a queue of the agent's own that RabbitMQ drops with the connection.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use airfleet_runtime::config::ConnectionUrl;
use futures::StreamExt as _;
use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
    uri::AMQPUri,
};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{Error, Load, Options, workers::Workers};

const EXCHANGE: &str = "celeryev";
/// All events of workers: heartbeats, arrivals and departures.
const ROUTING_KEY: &str = "worker.#";
/// Bounds of the agent's queue. Heartbeats are worth nothing later.
const QUEUE_MESSAGES_MAX: i32 = 1_000;
const QUEUE_TTL_MS: i32 = 30_000;
/// Seconds without traffic after which a connection counts as dead.
const HEARTBEAT_SECONDS: u16 = 10;
/// AMQP's reply code for something that does not exist.
const NOT_FOUND: u16 = 404;
/// How often the exchange is looked for, which exists once a worker has been there.
const EXCHANGE_RETRY: Duration = Duration::from_secs(5);

pub(super) struct RabbitMq {
    uri: AMQPUri,
    connect_timeout: Duration,
    link: Option<(Connection, Channel)>,
    queues: Vec<String>,
    workers: Arc<Workers>,
    _listener: AbortOnDropHandle<()>,
}

impl RabbitMq {
    pub(super) fn new(
        url: &ConnectionUrl,
        options: &Options,
        workers: Arc<Workers>,
    ) -> Result<Self, Error> {
        // `pyamqp` is how Celery names its driver.
        let text = url.expose();
        let text = text.strip_prefix("py").unwrap_or(text);
        let mut uri: AMQPUri =
            text.parse().map_err(|why| Error::Url { url: url.to_string(), why })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let listener = {
            let (uri, workers, limit) = (uri.clone(), workers.clone(), options.connect_timeout);
            super::keep_listening(workers.clone(), move || {
                listen(uri.clone(), workers.clone(), limit)
            })
        };
        Ok(Self {
            uri,
            connect_timeout: options.connect_timeout,
            link: None,
            queues: options.queues.clone(),
            workers,
            _listener: AbortOnDropHandle::new(tokio::spawn(listener)),
        })
    }

    pub(super) async fn load(&mut self) -> Result<Load, Error> {
        // Taken out, so that a connection that failed, or hangs and is given up on, is not used
        // again.
        let (connection, mut channel) = match self.link.take() {
            Some((connection, channel)) if connection.status().connected() => (connection, channel),
            _ => {
                let connection = connect(&self.uri, self.connect_timeout).await?;
                let channel = open_channel(&connection).await?;
                (connection, channel)
            }
        };
        let mut load = Load::default();
        let mut consumers = 0;
        for queue in &self.queues {
            let options = QueueDeclareOptions::default().passive();
            let declared =
                channel.queue_declare(queue.as_str().into(), options, FieldTable::default());
            match declared.await {
                Ok(queue) => {
                    load.queued_messages += i64::from(queue.message_count());
                    consumers = consumers.max(i64::from(queue.consumer_count()));
                }
                // Nothing was ever sent to it. The refusal closed the channel.
                Err(error) if is_not_found(&error) => channel = open_channel(&connection).await?,
                Err(source) => return Err(Error::RabbitMq { doing: "read the queues", source }),
            }
        }
        self.link = Some((connection, channel));
        // Each worker consumes each of its queues once, also where its heartbeats are turned off.
        let heard = self.workers.live(Instant::now());
        load.live_workers = if consumers > 0 { heard.max(Some(consumers)) } else { heard };
        Ok(load)
    }
}

async fn connect(uri: &AMQPUri, limit: Duration) -> Result<Connection, Error> {
    let properties = ConnectionProperties::default().with_connection_name("airfleet-agent".into());
    let connection = Connection::connect_uri(uri.clone(), properties);
    let connected = tokio::time::timeout(limit, connection).await.unwrap_or_else(|_| {
        Err(lapin::ErrorKind::IOError(Arc::new(std::io::ErrorKind::TimedOut.into())).into())
    });
    connected.map_err(|source| Error::RabbitMq { doing: "connect", source })
}

async fn open_channel(connection: &Connection) -> Result<Channel, Error> {
    let channel = connection.create_channel().await;
    channel.map_err(|source| Error::RabbitMq { doing: "open a channel", source })
}

fn is_not_found(error: &lapin::Error) -> bool {
    matches!(error.kind(), lapin::ErrorKind::ProtocolError(error) if error.get_id() == NOT_FOUND)
}

async fn listen(uri: AMQPUri, workers: Arc<Workers>, limit: Duration) -> Result<(), Error> {
    let failed = |doing| move |source| Error::RabbitMq { doing, source };
    let connection = connect(&uri, limit).await?;
    let mut channel = open_channel(&connection).await?;
    let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
    loop {
        let found = channel
            .exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, passive, FieldTable::default())
            .await;
        match found {
            Ok(()) => break,
            // Where no worker has ever been there is nothing to hear: that is listening too.
            Err(error) if is_not_found(&error) => {
                workers.listening(Instant::now());
                tokio::time::sleep(EXCHANGE_RETRY).await;
                channel = open_channel(&connection).await?;
            }
            Err(source) => return Err(failed("look for the exchange of events")(source)),
        }
    }

    // Named as Celery's own monitors do, so that their permissions suffice.
    let queue = format!("celeryev.airfleet-agent.{}", Uuid::new_v4());
    let mut bounds = FieldTable::default();
    bounds.insert("x-max-length".into(), AMQPValue::LongInt(QUEUE_MESSAGES_MAX));
    bounds.insert("x-message-ttl".into(), AMQPValue::LongInt(QUEUE_TTL_MS));
    channel
        .queue_declare(
            queue.as_str().into(),
            QueueDeclareOptions::exclusive().auto_delete(),
            bounds,
        )
        .await
        .map_err(failed("declare a queue for events"))?;
    channel
        .queue_bind(
            queue.as_str().into(),
            EXCHANGE.into(),
            ROUTING_KEY.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .map_err(failed("bind the queue for events"))?;
    let mut events = channel
        .basic_consume(
            queue.as_str().into(),
            "".into(),
            BasicConsumeOptions { no_ack: true, ..Default::default() },
            FieldTable::default(),
        )
        .await
        .map_err(failed("consume events"))?;
    workers.listening(Instant::now());
    while let Some(event) = events.next().await {
        let event = event.map_err(failed("read events"))?;
        workers.hear(&event.data, Instant::now());
    }
    Ok(())
}
