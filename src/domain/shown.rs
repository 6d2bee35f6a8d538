//! What may be shown of words that others wrote: names of files and devices, comments, answers.

/// Whether a character has no shape: a terminal obeys it, or it hides, or turns the direction of, what stands beside it.
pub fn is_shapeless(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
