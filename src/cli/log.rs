//! Where log lines go, and in which form.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::terminal;
use crate::app::{Exit, Failure};
use crate::config::{Log, LogFormat};

/// Begins to log as configured. `auto` is the journal's own fields under systemd, text on a
/// terminal, else JSON.
pub fn start(log: &Log) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&log.level)
        .map_err(|error| Failure::new(Exit::Config, format!("log.level = \"{}\": {error}", log.level)))?;
    let format = match log.format {
        LogFormat::Auto if std::env::var_os("JOURNAL_STREAM").is_some() => LogFormat::Journald,
        LogFormat::Auto if stderr().is_terminal() => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        format => format,
    };
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Journald => match tracing_journald::layer() {
            Ok(layer) => Box::new(layer),
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
