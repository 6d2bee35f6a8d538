//! Where log lines go, and in which form.

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, stderr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::journal::Journal;
use super::terminal;
use crate::app::{Exit, Failure};
use crate::config::{Log, LogFormat};

/// Whether standard error is what systemd connected to the journal: a shell that a service started has the
/// variable too, and its standard error may be anything.
fn is_journal() -> bool {
    let Some(told) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let Ok(stream) = stderr().as_fd().try_clone_to_owned() else { return false };
    File::from(stream).metadata().is_ok_and(|of| told == OsString::from(format!("{}:{}", of.dev(), of.ino())))
}

/// Begins to log as configured. `auto` is the journal's own fields under systemd, text on a
/// terminal, else JSON.
pub fn start(log: &Log) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&log.level)
        .map_err(|error| Failure::new(Exit::Config, format!("log.level = \"{}\": {error}", log.level)))?;
    let format = match log.format {
        LogFormat::Auto if is_journal() => LogFormat::Journald,
        LogFormat::Auto if stderr().is_terminal() => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        format => format,
    };
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Journald => match Journal::new() {
            Ok(journal) => Box::new(journal),
            Err(_) => text(),
        },
        LogFormat::Text | LogFormat::Auto => text(),
        LogFormat::Json => Box::new(fmt::layer().json().flatten_event(true).with_writer(stderr)),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

fn text() -> Box<dyn Layer<Registry> + Send + Sync> {
    Box::new(fmt::layer().with_target(false).with_ansi(terminal::is_coloured(&stderr())).with_writer(stderr))
}
