//! `sweepd run`: the daemon.

use std::sync::Arc;

use super::{Context, log};
use crate::app::{self, Failure};

pub async fn run(context: &Context) -> Result<(), Failure> {
    let config = context.full_config()?;
    log::start(&config.log)?;
    app::run(config, Arc::clone(&context.clock), || context.full_config()).await
}
