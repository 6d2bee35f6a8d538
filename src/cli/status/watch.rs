//! `sweepd status --watch`: on a terminal a page that is drawn anew, elsewhere a block or a line of JSON at a time.

use std::io::{self, Write, stdout};
use std::time::Duration;

use serde::Serialize;

use super::page::lines;
use super::screen::{Event, Screen, draw};
use super::{Seen, look};
use crate::app::Failure;
use crate::cli::Context;
use crate::cli::output::{json_line, quiet, say};
use crate::cli::terminal::{self, Paint};
use crate::config::Config;
use crate::web::overview::LastFailure;
use crate::web::report::Report;

/// A round, as `--json` prints it.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    report: &'a Report,
    last_failures: &'a [LastFailure],
}

/// Shows it every so often, until somebody has seen enough.
pub async fn run(context: &Context, config: &Config, every: Duration) -> Result<(), Failure> {
    // What is wrong from the beginning is an error like that of any command.
    let seen = look(context, config).await?;
    if context.json || !terminal::obeys(&stdout()) {
        return in_turn(context, config, every, seen).await;
    }
    let mut screen = Screen::take()?;
    let watched = on_screen(context, config, every, seen, &mut screen).await;
    drop(screen);
    quiet(watched)
}

async fn on_screen(
    context: &Context,
    config: &Config,
    every: Duration,
    mut seen: Seen,
    screen: &mut Screen,
) -> io::Result<()> {
    let paint = Paint::of_stdout();
    let mut trouble: Option<String> = None;
    let show = |seen: &Seen, trouble: Option<&str>| {
        draw(&lines(seen, trouble, context.clock.wall(), terminal::size(), paint)?)
    };
    loop {
        show(&seen, trouble.as_deref())?;
        let next = context.clock.boot() + every;
        let again = async {
            context.clock.sleep_until(next).await;
            look(context, config).await
        };
        tokio::pin!(again);
        let looked = loop {
            tokio::select! {
                looked = &mut again => break looked,
                event = screen.event() => match event {
                    Event::Quit => return Ok(()),
                    Event::Suspend => screen.suspend()?,
                    Event::Redraw => {}
                },
            }
            show(&seen, trouble.as_deref())?;
        };
        // What it was then is still worth seeing.
        match looked {
            Ok(looked) => (seen, trouble) = (looked, None),
            Err(failure) => trouble = Some(failure.to_string()),
        }
    }
}

async fn in_turn(context: &Context, config: &Config, every: Duration, mut seen: Seen) -> Result<(), Failure> {
    loop {
        let mut text = Vec::new();
        if context.json {
            json_line(&mut text, &Line { report: &seen.report, last_failures: &seen.failures })?;
        } else {
            for line in lines(&seen, None, context.clock.wall(), None, Paint::NONE)? {
                writeln!(text, "{line}")?;
            }
        }
        // One write for each: what reads along never meets half of one for long.
        let mut out = stdout().lock();
        match out.write_all(&text).and_then(|()| out.flush()) {
            Err(error) => return quiet(Err(error)),
            Ok(()) => drop(out),
        }
        loop {
            context.clock.sleep_until(context.clock.boot() + every).await;
            match look(context, config).await {
                Ok(looked) => {
                    seen = looked;
                    break;
                }
                Err(failure) => say(format_args!("sweepd: {failure}; trying again")),
            }
        }
    }
}
