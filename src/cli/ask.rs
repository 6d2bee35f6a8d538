//! What a command asks before it does what cannot be taken back.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::app::{Exit, Failure};

/// Says what will be done, and asks on a terminal. `yes` stands in for the answer; where nobody can be
/// asked and nobody has said it, nothing is done.
pub fn before(what: &str, yes: bool) -> Result<(), Failure> {
    eprintln!("{what}");
    if yes || on_terminal("Go on?")?.unwrap_or(false) {
        return Ok(());
    }
    if can_ask() {
        return Err(Failure::new(Exit::Failed, "nothing was done"));
    }
    Err(Failure::new(Exit::Usage, "nothing was done: nobody can be asked here; say it with --yes"))
}

/// The same for what does no harm: where nobody can be asked, it is done.
pub fn before_on_terminal(what: &str, yes: bool) -> Result<(), Failure> {
    before(what, yes || !can_ask())
}

/// The answer; none where nobody can be asked.
fn on_terminal(question: &str) -> io::Result<Option<bool>> {
    if !can_ask() {
        return Ok(None);
    }
    let mut out = io::stderr();
    write!(out, "{question} [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    if io::stdin().lock().read_line(&mut answer)? == 0 {
        // The end of input leaves the cursor behind the question.
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
