//! The command line, one file a command. Data goes to standard output, everything else to standard
//! error.

mod action;
mod ask;
mod audit;
mod backup;
mod check;
mod demo;
mod forecast;
mod ids;
mod job;
mod journal;
mod log;
mod man;
mod output;
mod pause;
mod reconcile;
mod run;
mod simulator;
mod status;
mod submit;
mod sweep;
mod table;
mod terminal;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};

use crate::app::{Exit, Failure, operator};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, Environment};
use crate::domain::shown::ShownPath;
use crate::process::{self, Owner};
use crate::store::Store;

/// Keeps a Microsoft Defender for Endpoint fleet scanned.
#[derive(Debug, Parser)]
#[command(name = "sweepd", version, about, max_term_width = 100)]
struct Cli {
    /// The configuration file [default: `$SWEEPD_CONFIG`, else /etc/sweepd/sweepd.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground: what systemd starts
    Run,
    /// Watch the real daemon sweep a simulated tenant on this machine
    Demo(demo::Args),
    /// Run the simulated tenant alone, to try a configuration without touching production
    Simulator(simulator::Args),
    /// Check the configuration and tell every error at once; `--online`: sign in, and tell what is missing
    Check(check::Args),
    /// Queue machines by writing a file into the drop folder; works while the daemon is down
    Submit(submit::Args),
    /// Show queue, budget, sweeps in progress, and what each tenant waits for
    Status(status::Args),
    /// Tell when what is queued would be done, and more machines behind it; works before any run
    Forecast(forecast::Args),
    /// Look at sweeps, export, cancel and retry them, and let a held one go
    #[command(subcommand)]
    Sweep(sweep::Command),
    /// Look at jobs
    #[command(subcommand)]
    Job(job::Command),
    /// Look at Defender's actions, each as it was received
    #[command(subcommand)]
    Action(action::Command),
    /// Verify the record of everything that happened
    #[command(subcommand)]
    Audit(audit::Command),
    /// Send nothing until `resume`; nothing is lost, following goes on, a restart changes nothing
    Pause(pause::Args),
    /// Go on after `pause`
    Resume(pause::ResumeArgs),
    /// Take over scans that sweepd made and this database does not know of, after a restore; then go on
    Reconcile(reconcile::Args),
    /// Write a consistent copy of the database, while the daemon runs
    Backup(backup::Args),
    /// Put such a copy in the place of the database, while no daemon runs
    Restore(backup::RestoreArgs),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for every command
    Man(man::Args),
}

/// What every command is given.
struct Context {
    path: Option<PathBuf>,
    json: bool,
    clock: Arc<dyn Clock>,
}

impl Context {
    fn config(&self, environment: &Environment) -> Result<Config, Failure> {
        config::load(self.path.as_deref(), environment, &[])
            .map_err(|error| Failure::new(Exit::Config, format!("the configuration is wrong:\n{error}")))
    }

    /// The configuration, secrets included.
    fn full_config(&self) -> Result<Config, Failure> {
        self.config(&Environment::of_process().at(self.clock.wall()))
    }

    /// The configuration of a command that needs no secret.
    fn plain_config(&self) -> Result<Config, Failure> {
        self.config(&Environment::of_process().without_secrets())
    }

    /// The same for a command that works in the state folder: when it returns, this process is that folder's owner,
    /// if root started it and the folder is somebody else's.
    fn owners_config(&self) -> Result<Config, Failure> {
        let config = self.plain_config()?;
        become_owner(owner_of(&[&config.daemon.state_dir])?.as_ref())?;
        Ok(config)
    }

    /// The database, or what to say when there is none yet.
    async fn store(&self, config: &Config) -> Result<Store, Failure> {
        Store::open_existing(&config.daemon.state_dir).await?.ok_or_else(|| Self::no_database(config))
    }

    fn no_database(config: &Config) -> Failure {
        let folder = ShownPath::new(&config.daemon.state_dir);
        Failure::new(Exit::Failed, format!("there is no database in {folder} yet; start the daemon first"))
    }
}

/// Reads a number of an argument: what is none is told what is.
fn whole_number<const LEAST: u32>(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number >= LEAST);
    number.ok_or_else(|| format!("write a whole number from {LEAST} to {}", u32::MAX))
}

/// Whom a process that root started becomes before it works in these folders: the owner of the first that is not root's.
fn owner_of(folders: &[&Path]) -> Result<Option<Owner>, Failure> {
    Owner::of(folders).map_err(|error| {
        let shown: Vec<_> = folders.iter().map(|folder| ShownPath::new(&folder).to_string()).collect();
        let what = shown.join(" or ");
        Failure::new(
            Exit::Failed,
            format!("{what}: {error}: its owner is unknown, and nothing was done; check state_dir"),
        )
    })
}

/// Becomes the owner, if that is another user.
fn become_owner(owner: Option<&Owner>) -> Result<(), Failure> {
    let Some(owner) = owner else { return Ok(()) };
    owner.assume().map_err(|error| {
        let uid = owner.uid();
        let message = format!(
            "root cannot become the user {uid}, who owns the state folder: {error}: nothing was done; run this as that user"
        );
        Failure::new(Exit::NotPermitted, message)
    })
}

/// What is left to do of a command once it has opened what only root may open, and is the owner of the state folder.
type Work<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let hidden = process::hide();
    // Asked while this process is still what the operator started.
    operator();
    let cli = Cli::parse();
    let context = Context { path: cli.config, json: cli.json, clock: Arc::new(SystemClock) };
    let outcome = hidden
        .map_err(|error| {
            let message =
                format!("the memory of this process cannot be kept from core dumps: {error}: nothing was read");
            Failure::new(Exit::Failed, message)
        })
        .and_then(|()| prepare(cli.command, &context))
        .and_then(finish);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::say(format_args!("sweepd: {failure}"));
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn finish(work: Work<'_>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, format!("the runtime cannot start: {error}")))?;
    let outcome = runtime.block_on(work);
    // A thread that waits for a file system must not keep the process from ending.
    runtime.shutdown_background();
    outcome
}

/// Does what has to be done while this process has the rights that it was started with, and before it has a second
/// thread.
fn prepare(command: Command, context: &Context) -> Result<Work<'_>, Failure> {
    match command {
        Command::Run => run::prepare(context),
        Command::Demo(args) => Ok(Box::pin(async move { demo::run(context, &args).await })),
        Command::Simulator(args) => Ok(Box::pin(async move { simulator::run(context, &args).await })),
        Command::Check(args) => check::prepare(context, args),
        Command::Submit(args) => submit::prepare(context, args),
        Command::Status(args) => as_owner(context, args, status::run),
        Command::Forecast(args) => as_owner(context, args, forecast::run),
        Command::Sweep(command) => as_owner(context, command, sweep::run),
        Command::Job(command) => as_owner(context, command, job::run),
        Command::Action(command) => as_owner(context, command, action::run),
        Command::Audit(command) => as_owner(context, command, audit::run),
        Command::Pause(args) => as_owner(context, args, pause::pause),
        Command::Resume(args) => as_owner(context, args, pause::resume),
        Command::Reconcile(args) => as_owner(context, args, reconcile::run),
        Command::Backup(args) => backup::prepare_backup(context, &args),
        Command::Restore(args) => backup::prepare_restore(context, args),
        Command::Completions { shell } => {
            // Into memory first: it panics where it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sweepd", &mut script);
            Ok(Box::pin(async move { output::print_as_it_is(|out| out.write_all(&script)) }))
        }
        Command::Man(args) => Ok(Box::pin(async move { man::run(&args, Cli::command()) })),
    }
}

/// A command that needs the configuration, and nothing else that only root may open.
fn as_owner<'a, A: 'a>(
    context: &'a Context,
    args: A,
    run: impl AsyncFnOnce(&Context, &Config, &A) -> Result<(), Failure> + 'a,
) -> Result<Work<'a>, Failure> {
    let config = context.owners_config()?;
    Ok(Box::pin(async move { run(context, &config, &args).await }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_none_is_told_what_is() {
        for number in ["-1", "1.5", "abc", "", "4294967296", "1e3"] {
            let error = Cli::try_parse_from(["sweepd", "forecast", "--machines", number]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{number:?}");
            let text = error.to_string();
            let line = text.lines().next().unwrap();
            assert!(line.contains("--machines"), "{line}");
            assert!(number.is_empty() || line.contains("write a whole number from 0 to 4294967295"), "{line}");
        }
        assert!(
            Cli::try_parse_from(["sweepd", "demo", "--machines", "0"]).unwrap_err().to_string().contains("from 1 to")
        );
        for (command, number) in [("forecast", "0"), ("forecast", "4294967295"), ("demo", "1"), ("simulator", "0")] {
            assert!(Cli::try_parse_from(["sweepd", command, "--machines", number]).is_ok(), "{command} {number}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
