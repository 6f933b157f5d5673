use std::{collections::BTreeMap, fs, time::Duration};

use serde::Deserialize;

use super::*;

/// Settings of a service that does not exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Sample {
    /// Where it serves.
    server: ServerConfig,
    /// What it tells.
    telemetry: TelemetryConfig,
    /// Its database.
    store: StoreConfig,
    /// Others it calls.
    peer: ClientConfig,
    /// Words, by name.
    words: BTreeMap<String, String>,
    /// How often it looks | whether
    /// at all.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    interval: Duration,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            server: ServerConfig::on_port(7401),
            telemetry: TelemetryConfig::default(),
            store: StoreConfig::sqlite("sample.db"),
            peer: ClientConfig::default(),
            words: BTreeMap::new(),
            interval: Duration::from_secs(5),
        }
    }
}

fn load(loader: &Loader) -> Result<Loaded<Sample>, String> {
    loader.load().map_err(|error| error.to_string())
}

#[test]
fn later_layers_win_and_origins_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sample.toml");
    fs::write(
        &path,
        "interval = \"7s\"\n[server]\nlisten = \"127.0.0.1:1\"\ninsecure = true\n\
         [server.limits]\nmax_streams = 3\n[words]\nhello = \"world\"\n",
    )
    .unwrap();
    let loader = Loader::without_env()
        .file(&path)
        .env([
            ("AIRFLEET__SERVER__LISTEN", "127.0.0.1:2"),
            ("AIRFLEET__SERVER__LIMITS__MAX_STREAMS", "4"),
            ("AIRFLEET__PEER__TOKEN", "12345"),
            ("AIRFLEET__PEER__ENDPOINTS", "http://a:1, http://b:2"),
            ("AIRFLEET__TELEMETRY__LOG_FORMAT", "json"),
            ("AIRFLEET_OTHER", "not a setting"),
            ("HOME", "/"),
        ])
        .flag("server.limits.max_streams", 5, "--max-streams");
    let loaded = load(&loader).unwrap();
    let config = &loaded.value;
    assert_eq!(config.interval, Duration::from_secs(7));
    assert_eq!(config.server.listen.port(), 2);
    assert!(config.server.insecure);
    assert_eq!(config.server.limits.max_streams, 5);
    assert_eq!(config.server.limits.max_connections, Limits::default().max_connections);
    assert_eq!(config.peer.token.as_ref().unwrap().expose(), "12345");
    assert_eq!(config.peer.endpoints, ["http://a:1", "http://b:2"]);
    assert_eq!(config.telemetry.log_format, LogFormat::Json);
    assert_eq!(config.words["hello"], "world");

    assert_eq!(loaded.origin("interval"), Origin::File(path.clone()));
    assert_eq!(loaded.origin("server.listen"), Origin::Env("AIRFLEET__SERVER__LISTEN".into()));
    assert_eq!(loaded.origin("server.limits.max_streams"), Origin::Flag("--max-streams".into()));
    assert_eq!(loaded.origin("store.url"), Origin::Default);
}

#[test]
fn secrets_are_not_shown() {
    let loader = Loader::without_env().env([
        ("AIRFLEET__PEER__TOKEN", "swordfish"),
        ("AIRFLEET__STORE__URL", "postgres://me:swordfish@db/x?sslpassword=swordfish&a=b"),
    ]);
    let loaded = load(&loader).unwrap();
    let shown = format!("{} {:?}", loaded.render(true), loaded.value);
    assert!(!shown.contains("swordfish"), "{shown}");
    assert!(shown.contains("postgres://me:[redacted]@db/x?sslpassword=[redacted]&a=b"), "{shown}");
    assert!(shown.contains("peer.token = \"[redacted]\""), "{shown}");
    assert!(shown.contains("# env AIRFLEET__PEER__TOKEN"), "{shown}");
    assert!(shown.contains("# peer.ca is not set"), "{shown}");
    assert_eq!(loaded.value.store.url.scheme(), "postgres");
    assert!(loaded.value.store.url.expose().contains("me:swordfish@db"));
}

#[test]
fn unknown_keys_are_all_named_with_what_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sample.toml");
    fs::write(&path, "[server]\nlisen = \"x\"\n[servr]\na = 1\n").unwrap();
    let loader = Loader::without_env()
        .file(&path)
        .env([("AIRFLEET__SERVER__LIMITS__MAX_STREAM", "1")])
        .assignment("zzzzzzzz=1")
        .unwrap();
    let error = load(&loader).unwrap_err();
    let file = format!("(from file {})", path.display());
    for expected in [
        format!("unknown key server.lisen; did you mean server.listen? {file}"),
        format!("unknown key servr; did you mean server? {file}"),
        "unknown key server.limits.max_stream; did you mean server.limits.max_streams? (from env \
         AIRFLEET__SERVER__LIMITS__MAX_STREAM)"
            .to_owned(),
        "unknown key zzzzzzzz; known here: interval, peer, server, store, telemetry, words (from \
         flag --set)"
            .to_owned(),
    ] {
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn wrong_values_are_all_named_with_their_origin() {
    let loader = Loader::without_env().env([
        ("AIRFLEET__SERVER__LISTEN", "nowhere"),
        ("AIRFLEET__TELEMETRY__LOG_FORMAT", "loud"),
    ]);
    let error = load(&loader).unwrap_err();
    assert!(error.contains("server.listen: invalid socket address"), "{error}");
    assert!(error.contains("(from env AIRFLEET__SERVER__LISTEN)"), "{error}");
    assert!(error.contains("telemetry.log_format: unknown variant `loud`"), "{error}");

    let loader = Loader::without_env().env([("AIRFLEET__SERVER__LIMITS__MAX_STREAMS", "many")]);
    let error = load(&loader).unwrap_err();
    assert!(error.contains("server.limits.max_streams: expected a whole number"), "{error}");
    assert!(Loader::without_env().assignment("novalue").is_err());
}

#[test]
fn of_several_files_later_ones_win() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first.toml"), dir.path().join("second.toml"));
    fs::write(&first, "interval = \"7s\"\n[words]\nhello = \"world\"\n").unwrap();
    fs::write(&second, "[words]\nhello = \"fleet\"\n").unwrap();
    let loaded = load(&Loader::without_env().optional_file(&first).file(&second)).unwrap();
    assert_eq!(loaded.value.interval, Duration::from_secs(7));
    assert_eq!(loaded.value.words["hello"], "fleet");
    assert_eq!(loaded.origin("words.hello"), Origin::File(second));
    assert_eq!(loaded.origin("interval"), Origin::File(first));
}

#[test]
fn files_may_be_optional() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("absent.toml");
    assert!(load(&Loader::without_env().optional_file(&path)).is_ok());
    assert!(load(&Loader::without_env().file(&path)).unwrap_err().contains("cannot read"));
    fs::write(&path, "a = = b").unwrap();
    let error = load(&Loader::without_env().optional_file(&path)).unwrap_err();
    assert!(error.contains("line 1, column 5"), "{error}");
}

#[test]
fn the_reference_lists_every_key() {
    let page = reference_markdown::<Sample>("sample");
    for line in [
        "| `interval` | duration | `\"5s\"` | `AIRFLEET__INTERVAL` | How often it looks \\| whether \
         at all. |",
        "| `peer.token` | secret | not set | `AIRFLEET__PEER__TOKEN` | Bearer token. Prefer \
         `token_file`. |",
        "| `server.insecure` | boolean | `false` | `AIRFLEET__SERVER__INSECURE` |",
        "| `store.url` | URL | `\"sqlite:sample.db\"` | `AIRFLEET__STORE__URL` |",
        "| `telemetry.log_format` | `pretty` or `json` | `\"pretty\"` |",
        "| `words` | table | `{}` | `AIRFLEET__WORDS` | Words, by name. |",
    ] {
        assert!(page.contains(line), "{line}\nis not in\n{page}");
    }
    let entries = Loaded::<Sample>::defaults().entries();
    for entry in entries {
        assert!(page.contains(&format!("| `{}` |", entry.key)), "{}", entry.key);
    }
}

#[test]
fn strangers_are_kept_out() {
    let local = "127.0.0.1:1".parse().unwrap();
    let open = "0.0.0.0:1".parse().unwrap();
    let mut config = ServerConfig::default();
    assert_eq!(config.check(local), Ok(()));
    let error = config.check(open).unwrap_err().to_string();
    assert!(error.contains("neither TLS nor authentication is configured"), "{error}");
    assert!(error.contains("server.tls.cert") && error.contains("server.insecure"), "{error}");

    config.tokens_file = Some("tokens.toml".into());
    let error = config.check(open).unwrap_err().to_string();
    assert!(error.contains("TLS is not configured"), "{error}");
    config.tls.cert = Some("cert.pem".into());
    assert_eq!(config.check(local), Err(Exposure::HalfACertificate));
    config.tls.key = Some("key.pem".into());
    assert_eq!(config.check(open), Ok(()));

    let insecure = ServerConfig { insecure: true, ..ServerConfig::default() };
    assert_eq!(insecure.check(open), Ok(()));
    let mut config = ServerConfig::default();
    config.tls.client_ca = Some("ca.pem".into());
    assert_eq!(config.check(local), Err(Exposure::ClientsWithoutTls));
}
