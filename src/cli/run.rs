//! `sweepd run`: the daemon.

use std::sync::Arc;

use super::{Context, Work, become_owner, log, owner_of};
use crate::app::{self, Failure};
use crate::config::Config;
use crate::process::Owner;

/// Reads the configuration and its secrets as whoever started this, then runs as the owner of the state folder.
pub fn prepare(context: &Context) -> Result<Work<'_>, Failure> {
    let config = context.full_config()?;
    let owner = owner_of(&[&config.daemon.state_dir])?;
    become_owner(owner.as_ref())?;
    Ok(Box::pin(async move { run(context, config, owner.as_ref()).await }))
}

async fn run(context: &Context, config: Config, owner: Option<&Owner>) -> Result<(), Failure> {
    log::start(&config.log)?;
    if let Some(owner) = owner {
        tracing::warn!(
            uid = owner.uid(),
            "root started the daemon in a folder of another user: it runs as that user, and a reload (SIGHUP) reads only \
             what that user may read"
        );
    }
    app::run(config, Arc::clone(&context.clock), || read_again(context, owner)).await
}

/// The configuration as it is now.
fn read_again(context: &Context, owner: Option<&Owner>) -> Result<Config, Failure> {
    context.full_config().map_err(|failure| match owner {
        None => failure,
        Some(owner) => {
            let uid = owner.uid();
            let hint = format!(
                "this daemon was started by root and is the user {uid} now: restart it to read files of root's"
            );
            Failure::new(failure.exit, format!("{failure}\n{hint}"))
        }
    })
}
