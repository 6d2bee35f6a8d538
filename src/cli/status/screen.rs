//! A terminal that is taken for a while, and given back as it was found: by a key, by a signal, by an error.

use std::io::{self, IsTerminal, Read, Write, stdin, stdout};

use nix::sys::signal::{Signal as Blow, kill};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Another page, whose old one comes back; no cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";

/// What somebody wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Quit,
    /// Draw it again: its size may be another.
    Redraw,
    /// Stop for a while (Ctrl-Z).
    Suspend,
}

/// The terminal, while it is ours.
pub struct Screen {
    found: Option<Termios>,
    keys: mpsc::Receiver<u8>,
    resized: Signal,
    interrupted: Signal,
    terminated: Signal,
    hung_up: Signal,
    suspended: Signal,
}

impl Screen {
    /// Takes standard output, and standard input if that is a terminal too.
    pub fn take() -> io::Result<Self> {
        let found = if stdin().is_terminal() { Some(tcgetattr(stdin())?) } else { None };
        // Before anything is changed: a signal that comes in between must find somebody who puts it back.
        let screen = Self {
            keys: keys(found.is_some()),
            found,
            resized: signal(SignalKind::window_change())?,
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
            hung_up: signal(SignalKind::hangup())?,
            suspended: signal(SignalKind::from_raw(Blow::SIGTSTP as i32))?,
        };
        screen.enter()?;
        Ok(screen)
    }

    fn enter(&self) -> io::Result<()> {
        if let Some(found) = &self.found {
            // Each key as it is typed, and not shown. Ctrl-C stays a signal.
            let mut ours = found.clone();
            ours.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
            tcsetattr(stdin(), SetArg::TCSADRAIN, &ours)?;
        }
        write(ENTER)
    }

    fn leave(&self) -> io::Result<()> {
        let left = write(LEAVE);
        if let Some(found) = &self.found {
            // What was typed and not read is not for the shell.
            tcsetattr(stdin(), SetArg::TCSAFLUSH, found)?;
        }
        left
    }

    /// What is wanted next.
    pub async fn event(&mut self) -> Event {
        loop {
            tokio::select! {
                _ = self.interrupted.recv() => return Event::Quit,
                _ = self.terminated.recv() => return Event::Quit,
                _ = self.hung_up.recv() => return Event::Quit,
                _ = self.suspended.recv() => return Event::Suspend,
                _ = self.resized.recv() => return Event::Redraw,
                Some(key) = self.keys.recv() => match key {
                    b'q' | b'Q' | END_OF_INPUT => return Event::Quit,
                    FORM_FEED => return Event::Redraw,
                    _ => {}
                },
            }
        }
    }

    /// Gives the terminal back and stops this process, until somebody lets it go on.
    pub fn suspend(&self) -> io::Result<()> {
        self.leave()?;
        kill(Pid::this(), Blow::SIGSTOP)?;
        self.enter()
    }
}

/// Ctrl-D and Ctrl-L.
const END_OF_INPUT: u8 = 4;
const FORM_FEED: u8 = 12;

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        drop(self.leave());
    }
}

/// Shows these lines, each of which has to fit, in place of what is there. The terminal is
/// that of a [`Screen`].
pub fn draw(lines: &[String]) -> io::Result<()> {
    write(&frame(lines))
}

/// Each line over the one that is there, without what that had more, and no line below the last.
fn frame(lines: &[String]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| format!("{line}\x1b[K")).collect();
    format!("\x1b[H{}\x1b[J", lines.join("\n"))
}

fn write(text: &str) -> io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What is typed. The thread that reads it ends with the process: nothing else can wake it.
fn keys(wanted: bool) -> mpsc::Receiver<u8> {
    let (typed, keys) = mpsc::channel(16);
    if wanted {
        std::thread::spawn(move || {
            let mut key = [0];
            while matches!(stdin().read(&mut key), Ok(1)) && typed.blocking_send(key[0]).is_ok() {}
        });
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_what_was_longer() {
        let lines = ["short".to_owned(), String::new()];
        assert_eq!(frame(&lines), "\x1b[Hshort\x1b[K\n\x1b[K\x1b[J");
    }
}
