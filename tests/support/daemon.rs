//! The real binary: as the daemon, and as the command line beside it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Site, eventually, is_final};

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The daemon of a [`Site`], running or not. Dropping it ends it.
#[derive(Debug)]
pub struct Daemon {
    /// Where it lives.
    pub site: Site,
    child: Option<Child>,
    starts: u32,
    /// What the daemon is run through, its binary included; empty: nothing.
    pub through: Vec<String>,
}

/// The binary with this configuration, deaf to the environment of the test.
fn sweepd(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sweepd"));
    command.env_clear().arg("--config").arg(config).stdin(Stdio::null());
    command
}

/// The same, run through another program, which has to become it.
fn through(words: &[String], config: &Path) -> Command {
    let Some((program, arguments)) = words.split_first() else { return sweepd(config) };
    let mut command = Command::new(program);
    command.env_clear().args(arguments).arg("--config").arg(config).stdin(Stdio::null());
    command
}

/// Whom a service runs as that may do nothing.
const NOBODY: &str = "65534";

impl Daemon {
    /// A daemon that does not run yet.
    pub const fn new(site: Site) -> Self {
        Self { site, child: None, starts: 0, through: Vec::new() }
    }

    /// A daemon that runs and is ready.
    pub async fn started(site: Site) -> Self {
        let mut daemon = Self::new(site);
        daemon.start().await;
        daemon
    }

    /// Starts it, and waits until it says that it is ready.
    pub async fn start(&mut self) {
        self.launch();
        let ready = eventually("word that the daemon is ready", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            let ready = self.log().iter().any(|line| line["message"] == "ready");
            (ready || ended.is_some()).then_some(ready)
        });
        assert!(ready.await, "the daemon ended at its start:\n{}", self.log_text());
    }

    /// Starts it, and does not wait.
    pub fn launch(&mut self) {
        self.launch_with(&[]);
    }

    /// The same, with these variables in its environment.
    pub fn launch_with(&mut self, environment: &[(&str, &str)]) {
        assert!(self.child.is_none(), "it runs already");
        self.starts += 1;
        let log = File::create(self.site.path().join(format!("log.{}", self.starts))).unwrap();
        let mut command = through(&self.through, &self.site.config());
        command.envs(environment.iter().copied()).arg("run").stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// What it has logged since it was last started.
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.site.path().join(format!("log.{}", self.starts))).unwrap_or_default()
    }

    /// The same, line by line; one that is only half written is left out.
    pub fn log(&self) -> Vec<Value> {
        self.log_text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Whether it has logged a line that contains this, since it was last started.
    pub fn has_logged(&self, text: &str) -> bool {
        self.log_text().contains(text)
    }

    fn send(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the daemon runs");
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Run by root, it is started as somebody who may not read everything, and what the site has is theirs. Else it
    /// is that anyway. Returns their user id where it is another one.
    pub fn run_as_somebody_else(&mut self) -> Option<u32> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        // Where this was built may be nobody else's to enter.
        let binary = self.site.path().join("sweepd");
        // By another process: a child that is forked here meanwhile would hold the file open for writing, and nobody
        // could execute it.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_sweepd")).arg(&binary).status();
        assert!(copied.unwrap().success());
        let owned = Command::new("chown").args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(self.site.path()).status();
        assert!(owned.unwrap().success());
        let words = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
        self.through = words.into_iter().map(str::to_owned).chain([binary.to_str().unwrap().to_owned()]).collect();
        NOBODY.parse().ok()
    }

    /// A line of `/proc/<pid>/status`, in MiB.
    pub fn memory(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// kill -9, and nothing of it is left when this returns.
    pub fn kill(&mut self) {
        self.send(Signal::SIGKILL);
        self.child.take().unwrap().wait().unwrap();
    }

    /// The same, if it has not ended by itself.
    pub fn kill_if_running(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }

    /// SIGTERM; returns how it ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.send(Signal::SIGTERM);
        self.ended().await
    }

    /// Lets it go on that has stopped itself.
    pub fn go_on(&self) {
        self.send(Signal::SIGCONT);
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.send(Signal::SIGHUP);
    }

    /// How it ended, if it did.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        let ended = self.child.as_mut().expect("the daemon was started").try_wait().unwrap();
        if ended.is_some() {
            self.child = None;
        }
        ended
    }

    /// Waits until it has ended; returns how.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the daemon runs");
        eventually("end of the daemon", || child.try_wait().unwrap()).await
    }

    /// Runs a command beside it.
    pub fn command(&self, arguments: &[&str]) -> Output {
        self.command_with_input(arguments, "")
    }

    /// The same, with something on standard input.
    pub fn command_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = sweepd(&self.site.config());
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads nothing may be gone already.
        child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
        let output = child.wait_with_output().unwrap();
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command beside it and interrupts it at a moment; returns its exit code.
    pub async fn interrupted(&self, arguments: &[&str], moment: &str, has_come: impl Fn() -> bool) -> Option<i32> {
        let mut command = sweepd(&self.site.config());
        let mut child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually(moment, || has_come().then_some(())).await;
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        eventually("its end", || child.try_wait().unwrap()).await.code()
    }

    /// Runs a command that has to succeed; returns what it printed.
    pub fn told(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert_eq!(output.code, 0, "sweepd {arguments:?}: {}", output.stderr);
        output.stdout
    }

    /// Runs a command with `--json` that has to succeed; returns its lines.
    pub fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let mut all = arguments.to_vec();
        all.push("--json");
        self.told(&all).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Every job.
    pub fn jobs(&self) -> Vec<Value> {
        self.lines(&["job", "list"])
    }

    /// `status --json`.
    pub fn status(&self) -> Value {
        self.lines(&["status"]).swap_remove(0)
    }

    /// The jobs of a machine, each with its attempts and its events.
    pub fn history(&self, machine: &str) -> Vec<Value> {
        self.lines(&["job", "show", machine])
    }

    /// Waits until there are `count` jobs and all of them are final; returns them.
    pub async fn all_final(&self, count: usize) -> Vec<Value> {
        let mut last = Vec::new();
        let found = eventually("end of all jobs", || {
            last = self.jobs();
            (last.len() >= count && last.iter().all(is_final)).then(|| last.clone())
        });
        let jobs = found.await;
        assert_eq!(jobs.len(), count, "a job for each machine, and no other");
        jobs
    }

    /// Waits for the receipt of a file, below `processed/` or `rejected/`.
    pub async fn receipt(&self, relative: &str) -> Value {
        self.document(&format!("{relative}.receipt.json")).await
    }

    /// Waits for the results of a sweep, in the results folder of `below` (or `""`).
    pub async fn results(&self, below: &str, sweep: &str) -> Value {
        let below = if below.is_empty() { String::new() } else { format!("{below}/") };
        self.document(&format!("results/{below}{sweep}.json")).await
    }

    async fn document(&self, relative: &str) -> Value {
        let path = self.site.spool(relative);
        let text = eventually(relative, || fs::read_to_string(&path).ok()).await;
        serde_json::from_str(&text).unwrap()
    }

    /// `GET` of a path; returns status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let log = self.log();
        let address = log.iter().find_map(|line| line["address"].as_str()).expect("the address is logged at the start");
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; either way it is gone afterwards.
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("the daemon's last log:\n{}", self.log_text());
        }
    }
}
