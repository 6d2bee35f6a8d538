//! A terminal of a test: the real binary on a pseudo-terminal that it controls, as a login shell's commands are.
//! Made with `setsid` and `stty`, which every Linux system has.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, ttyname};

use super::{Site, eventually};

/// A command on a terminal. Dropping it ends it.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    shown: Arc<Mutex<Vec<u8>>>,
    path: PathBuf,
    /// Keeps the terminal, and how it is set, when the command has ended.
    _held: OwnedFd,
}

impl Terminal {
    /// Runs a command on a terminal so large, with these variables beside `TERM`.
    pub fn run(site: &Site, command: &[&str], (columns, lines): (u16, u16), environment: &[(&str, &str)]) -> Self {
        let window = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&window), None).unwrap();
        let path = ttyname(&pair.slave).unwrap();
        let end = || pair.slave.try_clone().unwrap();
        let child = Command::new("setsid")
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("TERM", "xterm")
            .envs(environment.iter().copied())
            .args(["--ctty", env!("CARGO_BIN_EXE_sweepd"), "--config"])
            .arg(site.config())
            .args(command)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let master = File::from(pair.master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, kept) = (master.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(n) = screen.read(&mut part) {
                kept.lock().unwrap().extend_from_slice(&part[..n]);
            }
        });
        Self { child, keyboard: master, shown, path, _held: pair.slave }
    }

    /// Everything that was written to it, as lines end in a file.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).replace("\r\n", "\n")
    }

    /// What was drawn last, if the command draws pages: from the top of the screen, whole.
    pub fn page(&self) -> Option<String> {
        let shown = self.shown();
        let (_, page) = shown.rsplit_once("\x1b[H")?;
        let whole = page.split_once("\x1b[J").map(|(page, _)| page).or_else(|| {
            let (_, before) = shown[..shown.len() - page.len() - "\x1b[H".len()].rsplit_once("\x1b[H")?;
            before.split_once("\x1b[J").map(|(page, _)| page)
        });
        whole.map(|page| page.replace("\x1b[K", ""))
    }

    /// Waits until a page is drawn of which this is true; returns it.
    pub async fn page_with(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        eventually(what, || self.page().filter(|page| is_there(page))).await
    }

    /// Types something.
    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Makes it so large: what runs on it is told by SIGWINCH.
    pub fn resize(&self, columns: u16, lines: u16) {
        let size = ["cols".to_owned(), columns.to_string(), "rows".to_owned(), lines.to_string()];
        assert!(Command::new("stty").arg("-F").arg(&self.path).args(size).status().unwrap().success());
    }

    /// How it is set: echo, line by line, and all that.
    pub fn settings(&self) -> String {
        let told = Command::new("stty").arg("-F").arg(&self.path).arg("-g").output().unwrap();
        String::from_utf8(told.stdout).unwrap()
    }

    /// Sends the command a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits until the command has ended.
    pub async fn end(&mut self) -> ExitStatus {
        eventually("end of the command", || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("a command on a terminal could not be ended: {error}");
        }
    }
}
