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
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};

use crate::app::{Exit, Failure, operator};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, Environment};
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

    /// The database, or what to say when there is none yet.
    async fn store(&self, config: &Config) -> Result<Store, Failure> {
        Store::open_existing(&config.daemon.state_dir).await?.ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format!("there is no database in {} yet; start the daemon first", config.daemon.state_dir.display()),
            )
        })
    }
}

/// Reads a number of an argument: what is none is told what is.
fn whole_number<const LEAST: u32>(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number >= LEAST);
    number.ok_or_else(|| format!("write a whole number from {LEAST} to {}", u32::MAX))
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context { path: cli.config, json: cli.json, clock: Arc::new(SystemClock) };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::say(format_args!("sweepd: the runtime cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(dispatch(cli.command, &context));
    // A thread that waits for a file system must not keep the process from ending.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::say(format_args!("sweepd: {failure}"));
            ExitCode::from(failure.exit as u8)
        }
    }
}

async fn dispatch(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Run => run::run(context).await,
        Command::Demo(args) => demo::run(context, &args).await,
        Command::Simulator(args) => simulator::run(context, &args).await,
        Command::Check(args) => check::run(context, &args).await,
        Command::Submit(args) => submit::run(context, &args).await,
        Command::Status(args) => status::run(context, &args).await,
        Command::Forecast(args) => forecast::run(context, &args).await,
        Command::Sweep(command) => sweep::run(context, &command).await,
        Command::Job(command) => job::run(context, &command).await,
        Command::Action(command) => action::run(context, &command).await,
        Command::Audit(command) => audit::run(context, &command).await,
        Command::Pause(args) => pause::pause(context, &args).await,
        Command::Resume(args) => pause::resume(context, &args).await,
        Command::Reconcile(args) => reconcile::run(context, &args).await,
        Command::Backup(args) => backup::backup(context, &args).await,
        Command::Restore(args) => backup::restore(context, &args).await,
        Command::Completions { shell } => {
            // Into memory first: it panics where it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sweepd", &mut script);
            output::print_as_it_is(|out| out.write_all(&script))
        }
        Command::Man(args) => man::run(&args, Cli::command()),
    }
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
