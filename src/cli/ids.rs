//! Ids as operators write them: in any case, shortened while they are unique, and as a narrow table shows them.

use super::terminal::tame;
use crate::app::{Exit, Failure};
use crate::domain::id::MachineId;
use crate::store::Store;

/// So many of those that an id may mean are told.
pub const TOLD: usize = 8;

/// What the ids that are meant begin with.
pub fn beginning(typed: &str) -> Result<String, Failure> {
    let beginning = typed.trim().trim_end_matches(['…', '.']).to_lowercase();
    // A script's empty variable would else mean whatever is the only one.
    if beginning.is_empty() {
        return Err(Failure::new(Exit::Usage, "the id is empty: write it, or its beginning"));
    }
    Ok(beginning)
}

/// The one that is meant, of those that begin so: each with its id and a word about it. `see` is where ids are
/// found.
pub fn only<T>(kind: &str, typed: &str, found: Vec<(T, String, String)>, see: &str) -> Result<T, Failure> {
    let wanted = beginning(typed)?;
    let typed = tame(typed.trim());
    let mut whole = None;
    let mut others: Vec<(T, String, String)> = Vec::new();
    for candidate in found {
        if candidate.1 == wanted { whole = Some(candidate.0) } else { others.push(candidate) }
    }
    if let Some(whole) = whole {
        return Ok(whole);
    }
    if others.len() > 1 {
        let mut message = format!("more than one {kind} begins with {typed}; write more of the id:");
        for (_, id, about) in others.iter().take(TOLD) {
            message += format!("\n  {id}  {}", tame(about)).trim_end();
        }
        if others.len() > TOLD {
            message += "\n  and more";
        }
        return Err(Failure::new(Exit::Usage, message));
    }
    let none = || Failure::new(Exit::Failed, format!("there is no {kind} {typed}; see {see}"));
    others.pop().map(|(only, ..)| only).ok_or_else(none)
}

/// The machine that is meant: a whole id is taken as it is, a shortened one is that of a machine with a job or an
/// action.
pub async fn machine(store: &Store, typed: &str) -> Result<MachineId, Failure> {
    let wanted = beginning(typed)?;
    if let Ok(whole) = wanted.parse::<MachineId>() {
        return Ok(whole);
    }
    if wanted.len() > MachineId::DIGITS || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message = format!("{}: not a machine id: 40 hexadecimal digits, or the first of them", tame(typed.trim()));
        return Err(Failure::new(Exit::Usage, message));
    }
    let found = store.machines_beginning(&wanted, TOLD + 1).await?;
    let found = found.into_iter().map(|machine| (machine, machine.to_string(), String::new())).collect();
    only("machine", typed, found, "`sweepd job list`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(typed: &str, ids: &[&str]) -> Result<String, Failure> {
        let wanted = beginning(typed)?;
        let found = ids.iter().filter(|id| id.starts_with(&wanted));
        let found = found.map(|id| ((*id).to_owned(), (*id).to_owned(), format!("the list {id}"))).collect();
        only("sweep", typed, found, "`sweepd sweep list`")
    }

    #[test]
    fn an_id_may_be_shortened_while_it_is_unique() {
        let ids = ["01a2033c-9c6b", "01a2033c-9c6b-7", "01b2"];
        for typed in ["01b2", "01b", "01B", " 01b ", "01b…"] {
            assert_eq!(meant(typed, &ids).unwrap(), "01b2", "{typed:?}");
        }
        assert_eq!(
            meant("01a2033c-9c6b", &ids).unwrap(),
            "01a2033c-9c6b",
            "a whole id is one, whatever begins with it"
        );
    }

    #[test]
    fn one_that_may_mean_several_lists_them_and_an_empty_one_means_none() {
        let error = meant("01", &["01a2", "01b2"]).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(["01a2", "the list 01b2", "write more"].iter().all(|word| error.message.contains(word)), "{error}");
        let many: Vec<_> = (0..20).map(|n| format!("01{n:02}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let error = meant("01", &many).unwrap_err();
        assert!(error.message.ends_with("and more") && error.message.lines().count() == TOLD + 2, "{error}");
        for typed in ["", "  ", "…"] {
            let error = meant(typed, &["01a2"]).unwrap_err();
            assert_eq!(error.exit, Exit::Usage, "{typed:?} would have meant the only one");
        }
        let error = meant("02", &["01a2"]).unwrap_err();
        assert_eq!(error.exit, Exit::Failed);
        assert!(error.message.contains("`sweepd sweep list`"), "{error}");
    }
}
