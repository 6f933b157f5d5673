//! Airflow's REST API, as far as it changes DAGs and their runs.
//!
//! Responsible for logging in, for the request that each change is, and for telling what is certain
//! after an answer, or after none: whether it was done, was not done, or may have been. `/api/v2` of
//! Airflow 3 with a token, `/api/v1` of Airflow 2 with a name and a password. It must not know
//! whether a change may be made.

use std::{path::Path, time::Duration};

use airfleet_domain::dags::{Change, Clear, Done, Failure, Outcome, Trigger, Trouble};
use airfleet_runtime::config::Secret;
use jiff::Timestamp;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use url::Url;

use super::api::{self, base_url, body, client};

/// Longest answer that is read: clearing names every task instance. Bytes.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Most characters of what Airflow says that are passed on.
const DETAIL_MAX: usize = 400;

/// How requests are made known as ours.
#[derive(Clone)]
enum Access {
    /// Airflow 3.
    Token(String),
    /// Airflow 2: with name and password each time.
    Password,
}

/// A web server that changes can be asked of.
pub(crate) struct Rest {
    client: Client,
    base: Url,
    username: String,
    password: Secret,
    access: Mutex<Option<Access>>,
}

impl Rest {
    /// The web server at `base`. No request takes longer than `timeout`; a change may be several.
    pub(crate) fn new(
        base: &str,
        authority: Option<&Path>,
        timeout: Duration,
        (username, password): (String, Secret),
    ) -> Result<Self, api::Error> {
        let (base, client) = (base_url(base)?, client(authority, timeout)?);
        Ok(Self { client, base, username, password, access: Mutex::default() })
    }

    /// Logs in anew. Answers what is logged in to, in words.
    pub(crate) async fn try_login(&self) -> Result<&'static str, Failure> {
        match self.log_in().await? {
            Access::Token(_) => Ok("logged in"),
            Access::Password => {
                // Its name and password come with each request.
                let answer = self.send(&Access::Password, &Method::GET, &["pools"], None).await?;
                answer.done().map(|_| "logged in, to Airflow 2")
            }
        }
    }

    /// Makes a change.
    pub(crate) async fn change(&self, dag_id: &str, change: &Change) -> Outcome {
        match change {
            Change::Trigger(trigger) => self.trigger(dag_id, trigger).await,
            Change::Clear(clear) => self.clear(dag_id, clear).await,
            Change::Pause(paused) => {
                let asked = json!({ "is_paused": paused });
                let answer = self.call(Method::PATCH, &["dags", dag_id], Some(&asked)).await?;
                answer.done().map(|_| Done::default())
            }
        }
    }

    async fn trigger(&self, dag_id: &str, trigger: &Trigger) -> Outcome {
        let asked = trigger_body(trigger)?;
        let answer = self.call(Method::POST, &["dags", dag_id, "dagRuns"], Some(&asked)).await?;
        let existed = answer.status == StatusCode::CONFLICT;
        let run = if existed {
            // Of that id, or another one of that logical date.
            let path = ["dags", dag_id, "dagRuns", &trigger.run_id];
            let known = self.call(Method::GET, &path, None).await?;
            if known.status == StatusCode::NOT_FOUND { answer.done()? } else { known.done()? }
        } else {
            answer.done()?
        };
        let run_state = run["state"].as_str().unwrap_or_default().to_owned();
        Ok(Done { run_state, existed, cleared: 0 })
    }

    async fn clear(&self, dag_id: &str, clear: &Clear) -> Outcome {
        let mut asked = json!({
            "dry_run": false,
            "dag_run_id": clear.run_id,
            "only_failed": clear.only_failed,
            "reset_dag_runs": true,
        });
        if !clear.task_ids.is_empty() {
            asked["task_ids"] = json!(clear.task_ids);
        }
        let path = ["dags", dag_id, "clearTaskInstances"];
        let cleared = self.call(Method::POST, &path, Some(&asked)).await?.done()?;
        // Airflow 3 counts them, Airflow 2 only names them.
        let named = cleared["task_instances"].as_array().map_or(0, Vec::len);
        let counted = cleared["total_entries"].as_i64();
        let cleared = counted.unwrap_or(i64::try_from(named).unwrap_or(i64::MAX));
        Ok(Done { cleared, ..Done::default() })
    }

    /// Asks; logs in anew where a login has ended.
    async fn call(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let mut access = self.access.lock().await;
        let known = access.is_some();
        let first = match &*access {
            Some(known) => known.clone(),
            None => access.insert(self.log_in().await?).clone(),
        };
        drop(access);
        let answer = self.send(&first, &method, path, body).await?;
        if answer.status != StatusCode::UNAUTHORIZED || !known {
            return Ok(answer);
        }
        let again = self.log_in().await?;
        *self.access.lock().await = Some(again.clone());
        self.send(&again, &method, path, body).await
    }

    async fn log_in(&self) -> Result<Access, Failure> {
        let login = json!({ "username": self.username, "password": self.password.expose() });
        let url = self.url(&["auth", "token"]);
        // Nothing is changed by it, so whatever fails, nothing was done.
        let nothing_done = |failure: Failure| Failure { trouble: Trouble::Away, ..failure };
        let answer = read(self.client.post(url).json(&login), false).await.map_err(nothing_done)?;
        match answer.status {
            // Airflow 2 has no tokens.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(Access::Password),
            status if status.is_success() => match answer.value["access_token"].as_str() {
                Some(token) => Ok(Access::Token(token.to_owned())),
                None => Err(Failure::new(
                    Trouble::NotSetUp,
                    "the answer of Airflow's auth/token has no token; is airflow.api_url its web \
                     server?",
                )),
            },
            status if status.is_server_error() => {
                Err(Failure::new(Trouble::Away, format!("Airflow answered {status} to a login")))
            }
            _ => Err(answer.login_refused()),
        }
    }

    async fn send(
        &self,
        access: &Access,
        method: &Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let version = match access {
            Access::Token(_) => "v2",
            Access::Password => "v1",
        };
        let path: Vec<_> = ["api", version].into_iter().chain(path.iter().copied()).collect();
        let mut request = self.client.request(method.clone(), self.url(&path));
        request = match access {
            Access::Token(token) => request.bearer_auth(token),
            Access::Password => request.basic_auth(&self.username, Some(self.password.expose())),
        };
        if let Some(body) = body {
            let mut body = body.clone();
            if let (Access::Password, Some(fields)) = (access, body.as_object_mut()) {
                // Airflow 3 wants to be told that there is no logical date, Airflow 2 does not.
                fields.retain(|_, value| !value.is_null());
            }
            request = request.json(&body);
        }
        read(request, matches!(access, Access::Password)).await
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }
}

/// What Airflow answered.
struct Answer {
    status: StatusCode,
    value: Value,
    /// Whether it was asked by name and password, as Airflow 2 is.
    by_password: bool,
}

/// Sends a request. A failure says what is certain of it.
async fn read(request: RequestBuilder, by_password: bool) -> Result<Answer, Failure> {
    let lost = |error: &reqwest::Error| {
        let trouble = if error.is_connect() { Trouble::Away } else { Trouble::InDoubt };
        Failure::new(trouble, format!("no answer from Airflow: {}", crate::words::chain(error)))
    };
    let response = request.send().await.map_err(|error| lost(&error))?;
    let status = response.status();
    let text = match body(response, ANSWER_BYTES_MAX).await {
        Ok(text) => text.unwrap_or_default(),
        // What it says is lost; that it was done is not.
        Err(_) if status.is_success() => Vec::new(),
        Err(error) => return Err(lost(&error)),
    };
    let value = serde_json::from_slice(&text).unwrap_or_default();
    Ok(Answer { status, value, by_password })
}

impl Answer {
    /// What it says, if the request was carried out.
    fn done(self) -> Result<Value, Failure> {
        let status = self.status;
        if status.is_success() {
            return Ok(self.value);
        }
        let said = self.detail();
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.login_refused(),
            StatusCode::NOT_FOUND => Failure::new(Trouble::NotFound, said),
            StatusCode::TOO_MANY_REQUESTS => Failure::new(Trouble::Busy, said),
            status if status.is_client_error() => Failure::new(Trouble::Refused, said),
            // It may have failed after what it was asked for.
            status => Failure::new(
                Trouble::InDoubt,
                format!("Airflow answered {}: {said}", status.as_u16()),
            ),
        })
    }

    fn login_refused(&self) -> Failure {
        let way = if self.by_password {
            ", and let it in by name and password: airflow.api.auth.backend.basic_auth has to be \
             among Airflow's api.auth_backends"
        } else {
            ""
        };
        let message = format!(
            "Airflow answered {} to the agent ({}); set airflow.api_username and \
             airflow.api_password to a user that may edit DAGs and their runs{way}",
            self.status.as_u16(),
            self.detail()
        );
        Failure::new(Trouble::NotSetUp, message)
    }

    /// What Airflow says is wrong, in one line.
    fn detail(&self) -> String {
        let one = |error: &Value| match error["msg"].as_str() {
            Some(what) => {
                let field = error["loc"].as_array().and_then(|loc| loc.last()).cloned();
                let field = field.and_then(|field| field.as_str().map(str::to_owned));
                field.map_or_else(|| what.to_owned(), |field| format!("{field}: {what}"))
            }
            None => error.to_string(),
        };
        let text = match &self.value["detail"] {
            Value::String(text) => text.clone(),
            Value::Array(errors) => errors.iter().map(one).collect::<Vec<_>>().join("; "),
            // Of a conflict: {"reason": …, "statement": …, "orig_error": …}.
            Value::Object(detail) => {
                detail.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned()
            }
            // Airflow 2 has no more to say than this where a run is not there.
            _ => self.value["title"].as_str().unwrap_or_default().to_owned(),
        };
        let text = if text.is_empty() { self.status.to_string() } else { text };
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(DETAIL_MAX).collect()
    }
}

fn trigger_body(trigger: &Trigger) -> Result<Value, Failure> {
    let refused = |why: String| Failure::new(Trouble::Refused, why);
    let mut asked = json!({ "dag_run_id": trigger.run_id, "logical_date": null });
    if !trigger.conf_json.is_empty() {
        let conf: Map<String, Value> = serde_json::from_str(&trigger.conf_json)
            .map_err(|error| refused(format!("conf is no JSON object: {error}")))?;
        asked["conf"] = conf.into();
    }
    if let Some(us) = trigger.logical_date_us {
        let at = Timestamp::from_microsecond(us)
            .map_err(|error| refused(format!("logical_date is no date: {error}")))?;
        asked["logical_date"] = at.to_string().into();
    }
    if !trigger.note.is_empty() {
        asked["note"] = trigger.note.clone().into();
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, value: Value) -> Result<Value, Failure> {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, value, by_password: false }.done()
    }

    fn trouble(status: u16, value: Value) -> (Trouble, String) {
        let failure = answer(status, value).unwrap_err();
        (failure.trouble, failure.message)
    }

    #[test]
    fn an_answer_tells_what_is_certain() {
        assert_eq!(answer(200, json!({"a": 1})), Ok(json!({"a": 1})));
        let (found, said) = trouble(404, json!({"detail": "The Dag with ID: `x` was not found"}));
        assert_eq!((found, &*said), (Trouble::NotFound, "The Dag with ID: `x` was not found"));
        let titled = json!({"detail": null, "title": "Dag Run id r not found in dag x"});
        assert_eq!(trouble(404, titled).1, "Dag Run id r not found in dag x");
        let errors = json!({"detail": [{"loc": ["body", "conf"], "msg": "Input should be\nso"}]});
        assert_eq!(trouble(422, errors), (Trouble::Refused, "conf: Input should be so".into()));
        let unique = json!({"detail": {"reason": "Unique constraint violation", "statement": "x"}});
        assert_eq!(trouble(409, unique), (Trouble::Refused, "Unique constraint violation".into()));
        assert_eq!(trouble(500, Value::Null).0, Trouble::InDoubt);
        assert_eq!(trouble(503, Value::Null).0, Trouble::InDoubt);
        let (found, said) = trouble(403, json!({"detail": "Forbidden"}));
        assert_eq!(found, Trouble::NotSetUp);
        assert!(said.contains("airflow.api_password"), "{said}");
        let status = StatusCode::UNAUTHORIZED;
        let airflow_2 = Answer { status, value: Value::Null, by_password: true }.done();
        assert!(airflow_2.unwrap_err().message.contains("auth.backend.basic_auth"));
        assert!(trouble(400, json!({"detail": "x".repeat(9999)})).1.len() <= DETAIL_MAX);
    }

    #[test]
    fn what_is_asked_stays_within_its_path() {
        let secret = Secret::new("pw");
        let login = ("a".to_owned(), secret);
        let rest = Rest::new("http://h:1/base", None, Duration::from_secs(1), login).unwrap();
        let url = rest.url(&["api", "v2", "dags", "pay.daily/../x y", "dagRuns"]);
        assert_eq!(url.as_str(), "http://h:1/base/api/v2/dags/pay.daily%2F..%2Fx%20y/dagRuns");
    }

    #[test]
    fn a_run_is_asked_for_with_what_was_given() {
        let trigger = Trigger {
            run_id: "r".into(),
            conf_json: r#"{"n": 1}"#.into(),
            logical_date_us: Some(1_500_000),
            note: "why".into(),
        };
        assert_eq!(
            trigger_body(&trigger).unwrap(),
            json!({
                "dag_run_id": "r", "conf": {"n": 1},
                "logical_date": "1970-01-01T00:00:01.5Z", "note": "why",
            })
        );
        for bad in ["[1]", "{", "1"] {
            let trigger = Trigger { conf_json: bad.into(), ..Trigger::default() };
            assert_eq!(trigger_body(&trigger).unwrap_err().trouble, Trouble::Refused, "{bad}");
        }
    }
}
