//! What may be shown of words that others wrote: names of files and devices, comments, answers.

/// Whether a character has no shape: a terminal obeys it, or it hides, or turns the direction of, what stands beside it.
pub fn is_shapeless(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Words of others on one line: at most so many characters, none that a terminal obeys.
pub fn on_one_line(words: &str, most: usize) -> String {
    let plain: String = words.chars().map(|c| if is_shapeless(c) { ' ' } else { c }).collect();
    let line = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(most) {
        None => line,
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default().trim_end()),
    }
}
