//! Text of users on a page: escaped, of limited length, and with the characters made visible that would reorder or hide their
//! neighbours.
//!
//! A bidirectional override in the name of a job could display `deploy to production` as another text; an element of
//! its own direction keeps the text around it in order, and the characters themselves are shown by their code points.

use maud::{Markup, PreEscaped, Render, html};

/// Characters of a name, a subject or a reason that are shown.
const NAME_CHARS_MAX: usize = 300;

/// A name, a subject or a reason; the first 300 characters of a longer one.
pub(crate) fn foreign_text(text: &str) -> Markup {
    let end = text.char_indices().nth(NAME_CHARS_MAX).map(|(at, _)| at);
    html! {
        bdi { (visible_text(&text[..end.unwrap_or(text.len())])) }
        @if end.is_some() { span.dim title="The text is longer than is shown here" { "…" } }
    }
}

/// Text of any length with its invisible characters shown by their code points.
pub(crate) fn visible_text(text: &str) -> Markup {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_hidden) {
        rest[..at].render_to(&mut out);
        let letter = rest[at..].chars().next().unwrap_or_default();
        out.push_str("<i class=\"code-point\">U+");
        out.push_str(&format!("{:04X}", u32::from(letter)));
        out.push_str("</i>");
        rest = &rest[at + letter.len_utf8()..];
    }
    rest.render_to(&mut out);
    PreEscaped(out)
}

/// Whether a character is not seen by itself and changes how its neighbours are read: control characters except line ends and tabs,
/// directional formatting, zero-width characters other than joiners.
const fn is_hidden(letter: char) -> bool {
    matches!(letter,
        '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// The first characters of a text with its invisible ones by their code points, for places that hold no elements: attributes,
/// titles, drawings.
pub(crate) fn cut_text(text: &str, chars_max: usize) -> String {
    let end = text.char_indices().nth(chars_max).map(|(at, _)| at);
    let mut out = String::new();
    for letter in text[..end.unwrap_or(text.len())].chars() {
        match is_hidden(letter) {
            true => out.push_str(&format!("[U+{:04X}]", u32::from(letter))),
            false => out.push(letter),
        }
    }
    if end.is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_reorder_or_hide_text_are_shown_by_their_code_points() {
        let shown = foreign_text("<b>a\u{202e}b\u{7}\u{200b}").into_string();
        assert_eq!(
            shown,
            "<bdi>&lt;b&gt;a<i class=\"code-point\">U+202E</i>b<i class=\"code-point\">U+0007</i><i class=\"code-point\">U+200B</i></bdi>"
        );
        // Letters of all scripts, and the joiners of emoji, stay.
        let plain = "naïve 日本語 עברית 👩\u{200d}💻";
        assert_eq!(visible_text(plain).into_string(), plain);
    }

    #[test]
    fn attributes_have_no_invisible_characters_either() {
        assert_eq!(cut_text("a\u{202e}bcd", 3), "a[U+202E]b…");
        assert_eq!(cut_text("abc", 3), "abc");
    }

    #[test]
    fn a_name_of_a_megabyte_is_cut() {
        let shown = foreign_text(&"\u{202e}".repeat(1_000_000)).into_string();
        assert!(shown.len() < 20_000, "{}", shown.len());
        assert!(shown.contains('…'));
    }
}
