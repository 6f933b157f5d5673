//! Which Celery workers live, from the heartbeats that they send.
//!
//! Responsible for reading worker events and for remembering who was heard of lately. Invariant:
//! silence counts as "no workers" only after somebody listened for a whole window; before that
//! nothing is known. It must not know how events travel.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;

/// Most workers that are remembered; further ones are not counted.
const WORKERS_MAX: usize = 10_000;

/// Longest message that is read. A heartbeat takes about 600 bytes.
pub(super) const EVENT_BYTES_MAX: usize = 64 * 1024;

/// Longest name of a worker that is remembered.
const NAME_BYTES_MAX: usize = 512;

/// Workers that were heard of lately.
#[derive(Debug)]
pub(super) struct Workers {
    window: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    heard_at: HashMap<Box<str>, Instant>,
    listening_since: Option<Instant>,
}

impl Workers {
    /// A worker counts as live for `window` after it was heard of.
    pub(super) fn new(window: Duration) -> Self {
        Self { window, state: Mutex::default() }
    }

    /// From now on events arrive.
    pub(super) fn listening(&self, now: Instant) {
        self.state().listening_since.get_or_insert(now);
    }

    /// Events no longer arrive.
    pub(super) fn deaf(&self) {
        self.state().listening_since = None;
    }

    /// Takes in one message.
    pub(super) fn hear(&self, message: &[u8], now: Instant) {
        let mut state = self.state();
        for event in parse(message) {
            if event.hostname.len() > NAME_BYTES_MAX {
                continue;
            }
            match event.kind.as_str() {
                "worker-offline" => {
                    state.heard_at.remove(event.hostname.as_str());
                }
                "worker-heartbeat" | "worker-online" => {
                    if let Some(heard_at) = state.heard_at.get_mut(event.hostname.as_str()) {
                        *heard_at = now;
                    } else {
                        self.forget_silent(&mut state, now);
                        if state.heard_at.len() < WORKERS_MAX {
                            state.heard_at.insert(event.hostname.into(), now);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// How many live; `None` where that is not known yet.
    pub(super) fn live(&self, now: Instant) -> Option<i64> {
        let mut state = self.state();
        self.forget_silent(&mut state, now);
        let listened = |since: Instant| now.duration_since(since) >= self.window;
        match state.heard_at.len() {
            0 if !state.listening_since.is_some_and(listened) => None,
            count => Some(count as i64),
        }
    }

    fn forget_silent(&self, state: &mut State, now: Instant) {
        state.heard_at.retain(|_, heard_at| now.duration_since(*heard_at) < self.window);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    hostname: String,
}

/// Kombu's envelope around a body.
#[derive(Debug, Deserialize)]
struct Envelope {
    body: String,
    #[serde(default)]
    properties: Properties,
}

#[derive(Debug, Default, Deserialize)]
struct Properties {
    #[serde(default)]
    body_encoding: String,
}

/// The events in a message: one, or several that were sent together; in kombu's envelope, as over
/// Redis, or without, as over AMQP. What is neither gives none: anybody may publish there.
fn parse(message: &[u8]) -> Vec<Event> {
    if message.len() > EVENT_BYTES_MAX {
        return Vec::new();
    }
    let Ok(envelope) = serde_json::from_slice::<Envelope>(message) else {
        return events(message);
    };
    if envelope.properties.body_encoding == "base64" {
        match base64::engine::general_purpose::STANDARD.decode(&envelope.body) {
            Ok(body) => events(&body),
            Err(_) => Vec::new(),
        }
    } else {
        events(envelope.body.as_bytes())
    }
}

fn events(body: &[u8]) -> Vec<Event> {
    match serde_json::from_slice(body) {
        Ok(Value::Array(list)) => {
            list.into_iter().filter_map(|event| serde_json::from_value(event).ok()).collect()
        }
        Ok(event) => serde_json::from_value(event).into_iter().collect(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_mins(1);

    fn event(kind: &str, hostname: &str) -> Vec<u8> {
        serde_json::json!({"type": kind, "hostname": hostname, "freq": 2.0, "active": 0})
            .to_string()
            .into_bytes()
    }

    /// As kombu 5.6 with Celery 5.6 publishes it.
    fn over_redis(body: &[u8]) -> Vec<u8> {
        serde_json::json!({
            "body": base64::engine::general_purpose::STANDARD.encode(body),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"hostname": "celery@host"},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": "celeryev", "routing_key": "worker.heartbeat"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": "4c2f7a4e"
            }
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn both_forms_of_messages_are_read() {
        let now = Instant::now();
        let workers = Workers::new(WINDOW);
        workers.hear(&event("worker-heartbeat", "a@1"), now);
        workers.hear(&over_redis(&event("worker-heartbeat", "b@1")), now);
        workers.hear(&over_redis(&event("worker-heartbeat", "b@1")), now);
        let both =
            [event("worker-online", "c@1"), event("worker-heartbeat", "a@1")].join(&b","[..]);
        workers.hear(&over_redis(&[&b"["[..], &both, b"]"].concat()), now);
        assert_eq!(workers.live(now), Some(3));
        workers.hear(&event("worker-offline", "c@1"), now);
        assert_eq!(workers.live(now), Some(2));
    }

    #[test]
    fn anything_else_is_passed_over() {
        let now = Instant::now();
        let workers = Workers::new(WINDOW);
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for message in [
            b"".to_vec(),
            b"\xff\xfe".to_vec(),
            b"null".to_vec(),
            b"{\"body\": \"%%%\", \"properties\": {\"body_encoding\": \"base64\"}}".to_vec(),
            b"{\"type\": 7, \"hostname\": null}".to_vec(),
            event("task-started", "a@1"),
            event("worker-heartbeat", &long),
            vec![b'['; EVENT_BYTES_MAX + 1],
        ] {
            workers.hear(&message, now);
        }
        assert_eq!(workers.live(now), None);
    }

    #[test]
    fn silence_counts_only_after_a_whole_window_of_listening() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let workers = Workers::new(WINDOW);
        assert_eq!(workers.live(at(1000)), None);
        workers.listening(start);
        assert_eq!(workers.live(at(59)), None);
        assert_eq!(workers.live(at(60)), Some(0));
        workers.hear(&event("worker-heartbeat", "a@1"), at(61));
        assert_eq!(workers.live(at(120)), Some(1));
        workers.deaf();
        assert_eq!(workers.live(at(121)), None);
        workers.listening(at(130));
        assert_eq!(workers.live(at(189)), None);
        assert_eq!(workers.live(at(190)), Some(0));
    }

    #[test]
    fn the_table_is_bounded() {
        let now = Instant::now();
        let workers = Workers::new(WINDOW);
        for index in 0..WORKERS_MAX + 5 {
            workers.hear(&event("worker-heartbeat", &format!("w@{index}")), now);
        }
        assert_eq!(workers.live(now), Some(WORKERS_MAX as i64));
    }
}
