//! `sweepd backup` and `sweepd restore`.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::output::{json_line, local, print};
use super::{Context, Work, ask, become_owner, operator, owner_of};
use crate::app::{Exit, Failure};
use crate::config::Config;
use crate::domain::shown::ShownPath;
use crate::process::{Named, Owner};
use crate::store::backups::{Copied, Copy, HOUR_OVER, Restoring};
use crate::store::incarnations::StateLock;
use crate::store::{FILE, StoreError};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write it; nothing may be there
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// What `sweepd backup` has written
    file: PathBuf,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Makes the file as whoever started this where the owner of the state folder can make none, then becomes that owner.
pub fn prepare_backup<'a>(context: &'a Context, args: &Args) -> Result<Work<'a>, Failure> {
    let config = context.plain_config()?;
    let state_dir = &config.daemon.state_dir;
    let owner = owner_of(&[state_dir])?;
    if owner.is_some() && !state_dir.join(FILE).exists() {
        // Said before a file is made that would stay behind.
        return Err(Context::no_database(&config));
    }
    let named = Named::to_make(&args.file, owner.as_ref()).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            let message = format!("{} is there already: choose another name", ShownPath::new(&args.file));
            Failure::new(Exit::Failed, message)
        }
        _ => Failure::file(&args.file, &error),
    })?;
    become_owner(owner.as_ref())?;
    Ok(Box::pin(async move { backup(context, &config, named).await }))
}

async fn backup(context: &Context, config: &Config, named: Named) -> Result<(), Failure> {
    let (file, made) = named.into_made();
    let is_made = made.is_some();
    let copied = copy(context, config, &file, made).await.map_err(|failure| {
        // Root has made it, in a folder that may be root's alone.
        if is_made && std::fs::remove_file(&file).is_err() {
            let left = format!("{failure}; {} is left behind without a copy in it: remove it", ShownPath::new(&file));
            return Failure::new(failure.exit, left);
        }
        failure
    })?;
    print(|out| {
        if context.json {
            let line =
                json!({ "file": file, "bytes": copied.bytes, "events": copied.head.seq, "head": copied.head.hash });
            return json_line(out, &line);
        }
        let (bytes, head) = (copied.bytes, &copied.head);
        writeln!(out, "{}: {bytes} bytes, {} events; head {}", ShownPath::new(&file), head.seq, head.hash)
    })
}

async fn copy(context: &Context, config: &Config, to: &Path, made: Option<File>) -> Result<Copied, Failure> {
    let store = context.store(config).await?;
    let at = context.clock.wall();
    let copied = match made {
        Some(file) => store.back_up_into(file, to, operator(), at).await?,
        None => store.back_up(to, operator(), at).await?,
    };
    store.close().await;
    Ok(copied)
}

/// A copy and its log, which only root may be able to open.
struct NamedCopy {
    file: Named,
    log: Option<Named>,
}

impl NamedCopy {
    fn of(path: &Path, owner: Option<&Owner>) -> Result<Self, Failure> {
        if !path.is_file() {
            return Err(Failure::new(Exit::Input, format!("{}: there is no such file", ShownPath::new(&path))));
        }
        let named = |path: &Path| Named::to_read(path, owner).map_err(|error| Failure::file(path, &error));
        let log = Copy::log_of(path);
        // Whether there is one may be root's alone to see.
        let log = if log.exists() { Some(named(&log)?) } else { None };
        Ok(Self { file: named(path)?, log })
    }

    fn open(self) -> Result<Copy, Failure> {
        let path = self.file.path.clone();
        let read = |named: Named| {
            let path = named.path.clone();
            named.into_reader().map_err(|error| Failure::file(&path, &error))
        };
        Ok(Copy { path, file: read(self.file)?, log: self.log.map(read).transpose()? })
    }
}

/// Opens the copy as whoever started this, then becomes the owner of the state folder.
pub fn prepare_restore(context: &Context, args: RestoreArgs) -> Result<Work<'_>, Failure> {
    let config = context.plain_config()?;
    let owner = owner_of(&[&config.daemon.state_dir])?;
    let named = NamedCopy::of(&args.file, owner.as_ref())?;
    become_owner(owner.as_ref())?;
    Ok(Box::pin(async move { restore(context, &config, &args, named).await }))
}

async fn restore(context: &Context, config: &Config, args: &RestoreArgs, named: NamedCopy) -> Result<(), Failure> {
    let state_dir = &config.daemon.state_dir;
    let Some(_lock) = StateLock::take(state_dir)? else {
        let message =
            format!("a daemon holds {}: stop it first, then restore, then start it", ShownPath::new(&state_dir));
        return Err(Failure::new(Exit::Locked, message));
    };
    let (restoring, copied) = Restoring::check(named.open()?, state_dir).await.map_err(|error| match error {
        // The copy is not what is wrong.
        StoreError::File { ref path, .. } if path.starts_with(state_dir) => error.into(),
        _ => {
            let message = format!("{} cannot be restored, nothing was changed: {error}", ShownPath::new(&args.file));
            Failure::new(Exit::Input, message)
        }
    })?;
    let at = context.clock.wall();
    let until = local(&(at + HOUR_OVER).rfc3339());
    let what = format!(
        "putting {} ({} events) in the place of {}, which is kept beside it; every tenant is paused until {until}, \
         since what was sent after the backup is not known",
        ShownPath::new(&args.file),
        copied.head.seq,
        ShownPath::new(&state_dir.join(FILE)),
    );
    if let Err(unwanted) = ask::before(&what, args.yes).await {
        restoring.abandon().await?;
        return Err(unwanted);
    }
    let aside = restoring.finish(operator(), at).await?;
    print(|out| {
        if context.json {
            let line = json!({ "events": copied.head.seq, "head": copied.head.hash, "aside": aside,
                "paused_until": (at + HOUR_OVER).rfc3339() });
            return json_line(out, &line);
        }
        let aside =
            aside.map(|path| format!("; the database that was there is {}", ShownPath::new(&path))).unwrap_or_default();
        writeln!(
            out,
            "restored, and paused until {until}{aside}\nstart the daemon; `sweepd resume` sends before that time"
        )
    })
}
