//! A machine id a line; or several, with commas, semicolons or blanks between them: each counts as a line of its own.

use std::io::BufRead;

use super::lines::Lines;
use super::{Line, Refusal, Row, Sink, Unusable, machine};

/// Reads ids; `#` starts a comment at the beginning of a line and after a blank.
pub fn read(input: impl BufRead, sink: &mut Sink<'_>) -> Result<(), Unusable> {
    let mut lines = Lines::new(input);
    while let Some(physical) = lines.next().map_err(Unusable::Read)? {
        let line = physical.number;
        if physical.too_long {
            sink(Line::Refused(Refusal::too_long(line, &physical.text)))?;
            continue;
        }
        let text = without_comment(&physical.text);
        if text.is_empty() {
            continue;
        }
        match machine::machines(text) {
            Ok(machines) => machines.into_iter().try_for_each(|machine| sink(Line::Row(Row::of(line, machine))))?,
            Err(reason) => sink(Line::Refused(Refusal::new(line, &physical.text, reason)))?,
        }
    }
    Ok(())
}

fn without_comment(line: &str) -> &str {
    let blank = |c: char| matches!(c, ' ' | '\t');
    let start = line
        .match_indices('#')
        .map(|(at, _)| at)
        .find(|at| line.get(..*at).is_some_and(|before| before.is_empty() || before.ends_with(blank)));
    start.and_then(|at| line.get(..at)).unwrap_or(line).trim_matches(blank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_start_a_line_or_follow_a_blank() {
        for (line, rest) in [
            ("# all", ""),
            ("#", ""),
            (" \t# all", ""),
            ("id # why # not", "id"),
            ("id\t#why", "id"),
            ("id#why", "id#why"),
            ("id#a #b", "id#a"),
            ("\0", "\0"),
        ] {
            assert_eq!(without_comment(line), rest, "{line:?}");
        }
    }
}
