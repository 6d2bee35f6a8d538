//! Whose a database is, which schema it has, and the way from an older one to this version's.
//!
//! A file is opened for reading alone until it is known as sweepd's: by the steps that are noted in it, and by each
//! object that those make (`super::objects`). A database only goes forward. Before it does, a copy stays behind in its old schema: with that,
//! and the program that fits it, one goes back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use super::backups::{Copied, beside, copy_of, into_place};
use super::objects::Objects;
use super::{Doing, StoreError, looking};
use crate::domain::shown::ShownPath;
use crate::domain::time::Wall;

/// The schema of this version, step by step; a test brings one of its own.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// What the copy is called that a migration leaves behind: this, the schema it has, and when it was made.
const KEPT: &str = ".schema-";

/// A file that should be a database of sweepd, and so what to do where it is none.
#[derive(Clone, Copy, Debug)]
pub(super) enum Candidate<'a> {
    /// The database of a state folder.
    Database(&'a Path),
    /// A copy of what an operator wants to restore.
    CopyOf(&'a Path),
}

impl Candidate<'_> {
    const fn path(&self) -> &Path {
        match self {
            Self::Database(path) | Self::CopyOf(path) => path,
        }
    }

    /// It is not what it should be.
    pub(super) fn refused(&self, why: &str) -> StoreError {
        let remedy = match self {
            Self::Database(_) => "put a backup in its place with `sweepd restore`, or move the file away",
            Self::CopyOf(_) => "choose another backup",
        };
        StoreError::Version(format!("{}: {why}: it was left as it is; {remedy}", ShownPath::new(&self.path())))
    }

    /// An error of the first reading: what cannot be read as a database is refused, once and for all.
    fn unread(&self, error: StoreError) -> StoreError {
        if error.is_damage() { self.refused(&format!("it is damaged, or no database ({error})")) } else { error }
    }
}

/// How a database's schema stands to the one that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is nothing in it yet.
    Empty,
    /// It is this one.
    Current,
    /// It is this one's past.
    Older(i64),
    /// A later version of sweepd has it migrated.
    Newer(i64),
    /// It has steps that are not ours.
    Foreign(i64),
}

/// What a migration did: from which schema, to which, and where the copy in the old one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The schema that it had.
    pub from: i64,
    /// The schema that it has.
    pub to: i64,
    /// Where the copy in the old one is.
    pub kept: PathBuf,
    /// What that holds.
    pub copied: Copied,
}

fn newest(migrations: &Migrator) -> i64 {
    migrations.iter().map(|step| step.version).max().unwrap_or(0)
}

async fn standing(connection: &mut SqliteConnection, migrations: &Migrator) -> Result<Standing, StoreError> {
    let known: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'")
        .fetch_one(&mut *connection)
        .await
        .doing("read the database's schema")?;
    if known == 0 {
        return Ok(Standing::Empty);
    }
    let steps = sqlx::query("SELECT version, checksum FROM _sqlx_migrations ORDER BY version")
        .fetch_all(connection)
        .await
        .doing("read the database's schema")?;
    let mut found = None;
    for step in steps {
        let (version, checksum): (i64, Vec<u8>) = (step.get(0), step.get(1));
        found = Some(version);
        match migrations.iter().find(|ours| ours.version == version) {
            Some(ours) if *ours.checksum == *checksum => {}
            None if version > newest(migrations) => {}
            Some(_) | None => return Ok(Standing::Foreign(version)),
        }
    }
    Ok(match (found, newest(migrations)) {
        (None, _) => Standing::Empty,
        (Some(found), ours) if found > ours => Standing::Newer(found),
        (Some(found), ours) if found < ours => Standing::Older(found),
        (Some(_), _) => Standing::Current,
    })
}

/// Looks at the file at `at`, opened for reading alone. Fails unless it is empty, or is a database of sweepd with every
/// object that its steps of `migrations` make, and no other; and says what to do.
pub(super) async fn look(at: &Path, of: Candidate<'_>, migrations: &Migrator) -> Result<Standing, StoreError> {
    let mut connection = looking(at).connect().await.doing("open the database").map_err(|error| of.unread(error))?;
    let looked = standing_whole(&mut connection, of, migrations).await.map_err(|error| of.unread(error));
    connection.close().await.doing("close the database")?;
    looked
}

async fn standing_whole(
    connection: &mut SqliteConnection,
    of: Candidate<'_>,
    migrations: &Migrator,
) -> Result<Standing, StoreError> {
    let found = Objects::of(connection).await?;
    let standing = standing(connection, migrations).await?;
    let version = match standing {
        Standing::Empty if found.is_empty() => return Ok(standing),
        Standing::Empty => return Err(of.refused("it is a database of another program")),
        Standing::Current => newest(migrations),
        Standing::Older(version) => version,
        other => return Err(refusal(other, of.path(), newest(migrations))),
    };
    match found.difference(&Objects::made_by(migrations, version).await?) {
        None => Ok(standing),
        Some(difference) => Err(of.refused(&format!("it has schema {version}, but {difference}"))),
    }
}

/// Fails unless the database that was looked at has the schema of `migrations`, and says what to do. Returns whether
/// there is anything in it.
pub(super) fn expect_current(standing: Standing, path: &Path, migrations: &Migrator) -> Result<bool, StoreError> {
    let ours = newest(migrations);
    match standing {
        Standing::Current => Ok(true),
        Standing::Empty => Ok(false),
        Standing::Older(found) => Err(StoreError::Version(format!(
            "{} has schema {found} and this version of sweepd has {ours}: start the daemon, which migrates it",
            ShownPath::new(&path)
        ))),
        other => Err(refusal(other, path, ours)),
    }
}

fn refusal(standing: Standing, path: &Path, ours: i64) -> StoreError {
    StoreError::Version(match standing {
        Standing::Newer(found) => {
            let kept = latest_kept(path, ours).map_or_else(
                || "a backup that this version has made".to_owned(),
                |kept| format!("{}, which was kept at the migration", ShownPath::new(&kept)),
            );
            format!(
                "{} has schema {found}, of a newer version of sweepd; this one knows schemas up to {ours}. Install that \
                 version again, or go back to an older state: `sweepd restore` with {kept}",
                ShownPath::new(&path)
            )
        }
        _ => format!(
            "{} was made by a version of sweepd that was never released, and cannot be taken over: move it away, or \
             install that version again",
            ShownPath::new(&path)
        ),
    })
}

/// The youngest copy that a migration of the database at `path` left behind and that can be used with the
/// schema `ours`, if there is one.
fn latest_kept(path: &Path, ours: i64) -> Option<PathBuf> {
    let prefix = format!("{}{KEPT}", path.file_name()?.to_str()?);
    let names = fs::read_dir(path.parent()?).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let fits = |name: &String| {
        let (schema, stamp) = name.strip_prefix(&prefix)?.split_once('-')?;
        let schema: i64 = schema.parse().ok().filter(|schema| *schema <= ours)?;
        Some(((schema, stamp.to_owned()), name.clone()))
    };
    names.filter_map(|name| fits(&name)).max().map(|(_, name)| path.with_file_name(name))
}

/// Gives the database at `path` the schema of `migrations`. If it had an older one, a copy in that is made
/// first, beside it; if it has a newer one, nothing is changed.
pub(super) async fn bring_up(
    connection: &mut SqliteConnection,
    path: &Path,
    migrations: &Migrator,
    at: Wall,
) -> Result<Option<Migrated>, StoreError> {
    let to = newest(migrations);
    let from = match standing(connection, migrations).await? {
        Standing::Current => return Ok(None),
        Standing::Empty => {
            run(connection, migrations).await?;
            return Ok(None);
        }
        Standing::Older(from) => from,
        other => return Err(refusal(other, path, to)),
    };
    let kept = beside(path, &format!("{KEPT}{from}-{}", at.rfc3339().replace(':', "-")));
    tracing::info!(from, to, kept = %ShownPath::new(&kept), "the database has an older schema: it is copied, then migrated");
    let unfinished = beside(path, ".schema.unfinished");
    let copied = copy_of(connection, &unfinished).await?;
    into_place(&unfinished, &kept)?;
    run(connection, migrations).await?;
    Ok(Some(Migrated { from, to, kept, copied }))
}

/// Each step is a transaction of its own: what was interrupted goes on at the next start.
pub(super) async fn run(connection: &mut SqliteConnection, migrations: &Migrator) -> Result<(), StoreError> {
    migrations.run(connection).await.map_err(|error| match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
            StoreError::Database { doing: "migrate the database", source: Arc::new(source) }
        }
        other => StoreError::Version(other.to_string()),
    })
}
