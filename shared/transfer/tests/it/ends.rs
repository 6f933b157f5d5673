//! Two ends of a move: databases of one server, each migrated by Airflow, with the real fence.

use std::{
    path::{Path, PathBuf},
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};

use airfleet_domain::{
    ids::{Generation, Revision},
    moves::{History, Part, Seen},
    roles::Role,
};
use airfleet_local::{AirflowShard, Postgres};
use airfleet_runtime::config::ConnectionUrl;
use airfleet_shard_agent::airflow::{
    fence::{
        self,
        gate::{self, Order, Place},
    },
    metadata::Metadata,
};
use airfleet_transfer::{
    Ahead, Catalog, Database, Error, Export, ExportOptions, Import, ImportOrder, Installed, Opened,
    Piece, Scope, Trailer, copy::Position,
};
use sqlx::{ConnectOptions as _, PgConnection, postgres::PgConnectOptions};
use tokio::io::AsyncWriteExt as _;

/// A server with a migrated database to copy.
pub(crate) struct Server(AirflowShard);

/// One end.
pub(crate) struct End {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) database: Database,
    pub(crate) metadata: Metadata,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self(AirflowShard::builder("shard-a").database_only().boot().await.unwrap())
    }

    pub(crate) fn postgres(&self) -> &Postgres {
        self.0.postgres().unwrap()
    }

    /// A migrated database with the fence, and nothing in it.
    pub(crate) async fn end(&self, name: &str) -> End {
        let template = self.0.metadata_url().rsplit('/').next().unwrap().to_owned();
        let make = format!("CREATE DATABASE {name} TEMPLATE \"{template}\"");
        self.postgres().query("postgres", &make).await.unwrap();
        self.fenced(name).await
    }

    async fn fenced(&self, name: &str) -> End {
        let url = self.postgres().url(name);
        let secret = ConnectionUrl::new(url.clone()).unwrap();
        let metadata = Metadata::new(&secret, Duration::from_mins(1)).unwrap();
        fence::install(&metadata, None).await.unwrap();
        let database = Database::new(PgConnectOptions::from_str(&url).unwrap());
        End { name: name.to_owned(), url, database, metadata }
    }

    /// The same in a database that sorts as people do: by language, not by bytes.
    pub(crate) async fn end_in_english(&self, name: &str) -> End {
        let template = self.0.metadata_url().rsplit('/').next().unwrap().to_owned();
        let make = format!(
            "CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
        );
        self.postgres().query("postgres", &make).await.unwrap();
        // Collations come with a database and not with its copy, so the schema is written anew.
        let schema = tokio::process::Command::new(pg_dump())
            .args(["--dbname", &self.postgres().url(&template)])
            .output()
            .await
            .unwrap();
        assert!(schema.status.success(), "{}", String::from_utf8_lossy(&schema.stderr));
        let mut load = tokio::process::Command::new(pg_dump().with_file_name("psql"))
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null"])
            .args(["--dbname", &self.postgres().url(name)])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        load.stdin.take().unwrap().write_all(&schema.stdout).await.unwrap();
        assert!(load.wait().await.unwrap().success());
        self.fenced(name).await
    }

    pub(crate) async fn query(&self, end: &End, sql: &str) -> String {
        self.postgres().query(&end.name, sql).await.unwrap()
    }

    /// Rows of every table: see the file.
    pub(crate) async fn fill(&self, end: &End, prefix: &str, [dags, runs, tasks]: [u32; 3]) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql/rows.sql");
        let sql = std::fs::read_to_string(path)
            .unwrap()
            .replace("PREFIX", prefix)
            .replace("SALT", prefix)
            .replace("DAGS", &dags.to_string())
            .replace("RUNS", &runs.to_string())
            .replace("TASKS", &tasks.to_string());
        self.query(end, &sql).await;
    }

    /// Rows of Airflow's tables, as a line for each table that has any: count and digest.
    pub(crate) async fn print(&self, end: &End) -> String {
        let tables = "SELECT relname FROM pg_class WHERE relkind = 'r' \
             AND relnamespace = 'public'::regnamespace AND relname NOT LIKE 'airfleet%' ORDER BY 1";
        let tables = self.query(end, tables).await;
        let each: Vec<String> = tables
            .lines()
            .map(|table| {
                format!(
                    "SELECT '{table}', count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) \
                     FROM public.\"{table}\" t HAVING count(*) > 0"
                )
            })
            .collect();
        self.query(end, &each.join(" UNION ALL ")).await
    }
}

/// Of the newest release of Debian's packages, else what is in `PATH`.
fn pg_dump() -> PathBuf {
    let packaged = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let packaged = packaged.map(|entry| entry.path().join("bin/pg_dump")).filter(|it| it.is_file());
    packaged.max().unwrap_or_else(|| "pg_dump".into())
}

impl End {
    pub(crate) async fn connection(&self) -> PgConnection {
        PgConnectOptions::from_str(&self.url).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn catalog(&self) -> Catalog {
        Catalog::read(&self.database).await.unwrap()
    }

    /// Brings the fence into a role, as the agent does.
    pub(crate) async fn be(&self, scope: &Scope, role: Role, generation: i64) {
        self.be_at(scope, role, Place { generation, revision: generation }).await;
    }

    /// The same at a place of its own.
    pub(crate) async fn be_at(&self, scope: &Scope, role: Role, place: Place) {
        let mut tx = self.metadata.begin().await.unwrap();
        let order = Order {
            namespace: scope.namespace().as_str(),
            prefixes: scope.prefixes(),
            role,
            place,
        };
        if role == Role::Active {
            gate::open(&mut tx, order).await.unwrap();
        } else {
            gate::close(&mut tx, order).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
}

pub(crate) fn scope(prefixes: &[&str]) -> Scope {
    let prefixes = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
    Scope::new("pay".parse().unwrap(), prefixes).unwrap()
}

pub(crate) fn place(generation: i64) -> Seen {
    Seen { generation: Generation(generation), revision: Revision(generation) }
}

pub(crate) fn order(part: Part, attempt: u32, generation: i64) -> ImportOrder {
    ImportOrder { move_id: "move-1".parse().unwrap(), part, attempt, place: place(generation) }
}

pub(crate) async fn export(
    end: &End,
    scope: &Scope,
    part: Part,
    history: History,
    kept: Option<Position>,
) -> Export {
    export_beyond(end, scope, (part, history), kept, None).await
}

/// The same, where this went ahead.
pub(crate) async fn export_beyond(
    end: &End,
    scope: &Scope,
    (part, history): (Part, History),
    kept: Option<Position>,
    ahead: Option<Arc<Ahead>>,
) -> Export {
    let options = ExportOptions { part, history, kept, ahead };
    Export::begin(&end.database, &end.catalog().await, scope, options).await.unwrap()
}

pub(crate) async fn import(
    end: &End,
    scope: &Scope,
    order: ImportOrder,
) -> Result<Box<Import>, Installed> {
    match Import::open(&end.database, &end.catalog().await, scope, order).await.unwrap() {
        Opened::Import(import) => Ok(import),
        Opened::Done(installed) => Err(installed),
    }
}

/// Everything from one end to the other.
pub(crate) async fn copy(
    source: &End,
    target: &End,
    scope: &Scope,
    order: ImportOrder,
    history: History,
) -> Result<(Installed, Trailer), Error> {
    let copied = copy_beyond(source, target, scope, (order, history), None).await?;
    Ok((copied.installed, copied.trailer))
}

/// What came of a copy.
pub(crate) struct Copied {
    pub(crate) installed: Installed,
    pub(crate) trailer: Trailer,
    /// Whether what went ahead was not sent again.
    pub(crate) keeps_ahead: bool,
    /// Rows that were sent. Bytes.
    pub(crate) bytes: i64,
    /// What was read of it, where it goes ahead.
    pub(crate) ahead: Option<Arc<Ahead>>,
}

/// The same, where this went ahead.
pub(crate) async fn copy_beyond(
    source: &End,
    target: &End,
    scope: &Scope,
    (order, history): (ImportOrder, History),
    ahead: Option<Arc<Ahead>>,
) -> Result<Copied, Error> {
    let mut import = import(target, scope, order.clone()).await.expect("not done before");
    let what = (order.part, history);
    let mut export = export_beyond(source, scope, what, import.kept(), ahead).await;
    let mut keeps = false;
    while let Some(piece) = export.next().await? {
        if let Piece::Begin { keeps_ahead, .. } = &piece {
            keeps = *keeps_ahead;
        }
        if let Piece::Trailer(trailer) = piece {
            let bytes = import.bytes();
            let installed = import.install(trailer.clone()).await?;
            let ahead = export.ahead().map(Arc::new);
            return Ok(Copied { installed, trailer, keeps_ahead: keeps, bytes, ahead });
        }
        import.take(piece).await?;
    }
    panic!("rows without a trailer");
}
