//! `sweepd backup` and `sweepd restore`.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::output::{json_line, local, print};
use super::{Context, ask, operator};
use crate::app::{Exit, Failure};
use crate::store::backups::{HOUR_OVER, Restoring};
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

pub async fn backup(context: &Context, args: &Args) -> Result<(), Failure> {
    let config = context.plain_config()?;
    let store = context.store(&config).await?;
    let file = std::path::absolute(&args.file)?;
    let copied = store.back_up(&file, operator(), context.clock.wall()).await?;
    store.close().await;
    print(|out| {
        if context.json {
            let line =
                json!({ "file": file, "bytes": copied.bytes, "events": copied.head.seq, "head": copied.head.hash });
            return json_line(out, &line);
        }
        let (bytes, head) = (copied.bytes, &copied.head);
        writeln!(out, "{}: {bytes} bytes, {} events; head {}", file.display(), head.seq, head.hash)
    })
}

pub async fn restore(context: &Context, args: &RestoreArgs) -> Result<(), Failure> {
    let config = context.plain_config()?;
    let state_dir = &config.daemon.state_dir;
    if !args.file.is_file() {
        return Err(Failure::new(Exit::Input, format!("{}: there is no such file", args.file.display())));
    }
    let Some(_lock) = StateLock::take(state_dir)? else {
        let message = format!("a daemon holds {}: stop it first, then restore, then start it", state_dir.display());
        return Err(Failure::new(Exit::Locked, message));
    };
    let (restoring, copied) = Restoring::check(&args.file, state_dir).await.map_err(|error| match error {
        // The copy is not what is wrong.
        StoreError::File { ref path, .. } if path.starts_with(state_dir) => error.into(),
        _ => {
            let message = format!("{} cannot be restored, nothing was changed: {error}", args.file.display());
            Failure::new(Exit::Input, message)
        }
    })?;
    let at = context.clock.wall();
    let until = local(&(at + HOUR_OVER).rfc3339());
    let what = format!(
        "putting {} ({} events) in the place of {}, which is kept beside it; every tenant is paused until {until}, \
         since what was sent after the backup is not known",
        args.file.display(),
        copied.head.seq,
        state_dir.join(FILE).display(),
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
            aside.map(|path| format!("; the database that was there is {}", path.display())).unwrap_or_default();
        writeln!(
            out,
            "restored, and paused until {until}{aside}\nstart the daemon; `sweepd resume` sends before that time"
        )
    })
}
