//! A connection as people write it down: a URI or JSON, both as Airflow takes them.

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::airflow::objects::Connection;

/// Reads `postgres://user:password@host:5432/db?sslmode=require` or
/// `{"conn_type": "postgres", "host": …}`. The error says what is wrong without the value.
pub(crate) fn parse(text: &str) -> Result<Connection, &'static str> {
    if text.trim_start().starts_with('{') { from_json(text) } else { from_uri(text.trim()) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    conn_type: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    login: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    schema: Option<String>,
    #[serde(default)]
    port: Option<Value>,
    #[serde(default)]
    extra: Option<Value>,
}

fn from_json(text: &str) -> Result<Connection, &'static str> {
    let json: Json = serde_json::from_str(text).map_err(|_| {
        "not a JSON object of conn_type, description, host, login, password, schema, port and extra"
    })?;
    let port = match json.port {
        None | Some(Value::Null) => None,
        Some(Value::Number(port)) => Some(port.as_i64().ok_or("port is no number")?),
        Some(Value::String(port)) => Some(port.parse().map_err(|_| "port is no number")?),
        Some(_) => return Err("port is no number"),
    };
    let extra = match json.extra {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text,
        Some(value) => value.to_string(),
    };
    let connection = Connection {
        conn_type: json.conn_type,
        description: json.description.unwrap_or_default(),
        host: json.host.unwrap_or_default(),
        login: json.login.unwrap_or_default(),
        password: json.password.unwrap_or_default(),
        schema: json.schema.unwrap_or_default(),
        port,
        extra,
    };
    checked(connection)
}

fn from_uri(text: &str) -> Result<Connection, &'static str> {
    let malformed = "neither a URI (type://login:password@host:port/schema?extra) nor JSON";
    // Types of Airflow may have underscores, which URIs do not allow; Airflow writes hyphens.
    let (conn_type, rest) = text.split_once("://").ok_or(malformed)?;
    // Of another scheme, as for some the parser has rules of its own.
    let url = Url::parse(&format!("airfleet://{rest}")).map_err(|_| malformed)?;
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut extra = serde_json::Map::new();
    let mut whole = None;
    for (key, value) in url.query_pairs() {
        if key == "__extra__" {
            whole = Some(value.into_owned());
        } else {
            extra.insert(key.into_owned(), Value::String(value.into_owned()));
        }
    }
    let extra = match whole {
        Some(whole) => whole,
        None if extra.is_empty() => String::new(),
        None => Value::Object(extra).to_string(),
    };
    let connection = Connection {
        conn_type: match conn_type {
            "postgresql" => "postgres".to_owned(),
            other => other.replace('-', "_"),
        },
        description: String::new(),
        host: decoded(url.host_str().unwrap_or_default()),
        login: decoded(url.username()),
        password: decoded(url.password().unwrap_or_default()),
        schema: decoded(url.path().trim_start_matches('/')),
        port: url.port().map(i64::from),
        extra,
    };
    checked(connection)
}

fn checked(connection: Connection) -> Result<Connection, &'static str> {
    let Connection { conn_type, port, extra, .. } = &connection;
    if conn_type.is_empty() {
        return Err("conn_type is empty");
    }
    if port.is_some_and(|port| !(0..=65_535).contains(&port)) {
        return Err("port is out of range");
    }
    if !extra.is_empty() && serde_json::from_str::<serde_json::Map<_, _>>(extra).is_err() {
        return Err("extra is no JSON object");
    }
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_read_as_airflow_reads_it() {
        let connection =
            parse("google-cloud-platform://us%40er:p%2Fw@db.example:5432/pay%2Fx?mode=a").unwrap();
        assert_eq!(connection.conn_type, "google_cloud_platform");
        assert_eq!((&*connection.login, &*connection.password), ("us@er", "p/w"));
        assert_eq!((&*connection.host, connection.port), ("db.example", Some(5432)));
        assert_eq!((&*connection.schema, &*connection.extra), ("pay/x", r#"{"mode":"a"}"#));
        let other = parse("postgresql://h/?__extra__=%7B%22a%22%3A1%7D").unwrap();
        assert_eq!((&*other.conn_type, &*other.extra), ("postgres", r#"{"a":1}"#));
    }

    #[test]
    fn json_is_read_as_airflow_reads_it() {
        let text = r#"{"conn_type": "http", "host": "h", "port": "80", "extra": {"a": 1}}"#;
        let connection = parse(text).unwrap();
        assert_eq!((connection.port, &*connection.extra), (Some(80), r#"{"a":1}"#));
        for bad in [
            "{",
            r#"{"host": "h"}"#,
            r#"{"conn_type": "http", "hots": "h"}"#,
            r#"{"conn_type": "http", "port": 70000}"#,
            r#"{"conn_type": "http", "extra": "[1]"}"#,
            "hunter2",
        ] {
            let why = parse(bad).err().expect(bad);
            assert!(!why.contains("hunter2"));
        }
    }
}
