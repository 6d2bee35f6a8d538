//! What a command asks before it does what cannot be taken back.

use std::io::{self, BufRead, IsTerminal, Write};

use tokio::signal::unix::{SignalKind, signal};

use super::output::say;
use super::terminal::tame;
use crate::app::{Exit, Failure};

/// Says what will be done, and asks on a terminal. `yes` stands in for the answer; where nobody can be
/// asked and nobody has said it, nothing is done.
pub async fn before(what: &str, yes: bool) -> Result<(), Failure> {
    say(tame(what));
    if yes || answer("Go on?").await?.unwrap_or(false) {
        return Ok(());
    }
    if can_ask() {
        return Err(Failure::new(Exit::Failed, "nothing was done"));
    }
    Err(Failure::new(Exit::Usage, "nothing was done: nobody can be asked here; say it with --yes"))
}

/// The same for what does no harm: where nobody can be asked, it is done.
pub async fn before_on_terminal(what: &str, yes: bool) -> Result<(), Failure> {
    before(what, yes || !can_ask()).await
}

/// The answer; none where nobody can be asked. Ctrl-C is a no: whoever asks may have something to put away.
async fn answer(question: &str) -> io::Result<Option<bool>> {
    if !can_ask() {
        return Ok(None);
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut out = io::stderr();
    write!(out, "{question} [y/N] ")?;
    out.flush()?;
    let typed = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map(|_| answer)
    });
    let answer = tokio::select! {
        typed = typed => typed??,
        _ = interrupt.recv() => String::new(),
    };
    if !answer.ends_with('\n') {
        // The end of input, or Ctrl-C, leaves the cursor behind the question.
        writeln!(out)?;
    }
    Ok(Some(is_yes(&answer)))
}

fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_yes_is_one() {
        assert!(["y", "Y\n", " yes \n", "YES"].iter().all(|answer| is_yes(answer)));
        assert!(!["", "\n", "n", "no", "yep", "ye"].iter().any(|answer| is_yes(answer)));
    }
}
