//! Brings a service's tables up to date.
//!
//! Migrations are forward-only and additive, so a replica one version behind goes on working
//! beside a newer one: versions that are in the database and unknown here are left alone.
//! Invariant: all missing migrations of a service are applied in one transaction, or none.

use xxhash_rust::xxh3::xxh3_64;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::params;
use crate::postgres::Isolation;
use crate::tx::Tx;

/// One step of a service's tables. Never edited once released.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Order; grows.
    pub version: i64,
    /// What it does, in a few words.
    pub name: &'static str,
    /// Statements for both engines: TEXT and BIGINT columns, and `COLLATE "C"` on every text
    /// column that is ordered or compared by range. PostgreSQL would else order by language;
    /// SQLite, which orders by byte anyway and does not know the word, is not shown it.
    pub sql: &'static str,
}

const HISTORY: &str = "CREATE TABLE IF NOT EXISTS airfleet_migrations (
    service TEXT NOT NULL,
    version BIGINT NOT NULL,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at BIGINT NOT NULL,
    PRIMARY KEY (service, version)
)";

/// Key of the advisory lock that lets replicas that start together migrate one by one. Without
/// it they would still be safe, by the primary key above, but all but one would fail.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7163001)";

impl Db {
    /// Applies what is missing of `migrations` to the tables of `service`. Safe to call from
    /// several replicas at once.
    pub async fn migrate(&self, service: &str, migrations: &[Migration]) -> Result<()> {
        let mut tx = self.begin(Isolation::ReadCommitted).await?;
        if tx.is_postgres() {
            // One statement's limit is for serving, not for building an index.
            let millis = self.scan_timeout().as_millis();
            tx.batch(format!(
                "SET LOCAL statement_timeout = {millis}; SET LOCAL lock_timeout = {millis}; {LOCK}"
            ))
            .await?;
        }
        tx.batch(HISTORY.to_owned()).await?;
        let applied = tx
            .fetch_all(
                "SELECT version, checksum FROM airfleet_migrations WHERE service = $1",
                params![service],
                |row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?)),
            )
            .await?;
        let mut count = 0;
        for migration in migrations {
            let checksum = format!("{:016x}", xxh3_64(migration.sql.as_bytes()));
            match applied.iter().find(|(version, _)| *version == migration.version) {
                Some((_, known)) if *known == checksum => {}
                Some(_) => {
                    return Err(Error::Migration {
                        service: service.to_owned(),
                        version: migration.version,
                        detail: "was applied with another text; released migrations are never \
                                 edited, add a new one"
                            .to_owned(),
                    });
                }
                None => {
                    apply(&mut tx, service, migration, checksum).await?;
                    count += 1;
                }
            }
        }
        tx.commit().await?;
        if count > 0 {
            tracing::info!(service, count, "tables brought up to date");
        }
        Ok(())
    }
}

async fn apply(tx: &mut Tx, service: &str, migration: &Migration, checksum: String) -> Result<()> {
    let sql = if tx.is_postgres() {
        migration.sql.to_owned()
    } else {
        migration.sql.replace(" COLLATE \"C\"", "")
    };
    tx.batch(sql).await.map_err(|error| match error {
        Error::Statement { source, .. } => Error::Migration {
            service: service.to_owned(),
            version: migration.version,
            detail: source.map_or_else(String::new, |source| source.to_string()),
        },
        other => other,
    })?;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |age| i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
    tx.execute(
        "INSERT INTO airfleet_migrations (service, version, name, checksum, applied_at)
         VALUES ($1, $2, $3, $4, $5)",
        params![service, migration.version, migration.name, checksum, now],
    )
    .await?;
    Ok(())
}
