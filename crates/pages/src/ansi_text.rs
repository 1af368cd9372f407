//! A line of a log as HTML: colours become classes, all other control sequences are removed.
//!
//! The content policy of pages allows no inline styles, so the colours of 256-colour and true-colour sequences become the nearest of
//! the sixteen that the style sheet has for light and dark. Colours end with their line.

use maud::{Markup, PreEscaped, html};
use shipway_core::terminal::sanitize_for_terminal;

use crate::foreign_text::visible_text;

/// What a colour sequence has set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TextLook {
    text: Option<u8>,
    ground: Option<u8>,
    is_bold: bool,
    is_dim: bool,
    is_italic: bool,
    is_underlined: bool,
    is_inverse: bool,
}

/// The text of one line.
pub(crate) fn ansi_text(text: &str) -> Markup {
    let clean = sanitize_for_terminal(text);
    let mut parts = clean.split('\u{1b}');
    let mut out = visible_text(parts.next().unwrap_or_default()).into_string();
    let mut look = TextLook::default();
    for part in parts {
        // Only colours are left: `[`, parameters, `m`.
        let (parameters, text) = part
            .strip_prefix('[')
            .and_then(|part| part.split_once('m'))
            .unwrap_or(("", part));
        look.apply(parameters);
        if text.is_empty() {
            continue;
        }
        let shown = visible_text(text);
        let shown = match look == TextLook::default() {
            true => shown,
            false => html! { span class=(look.classes()) { (shown) } },
        };
        out.push_str(&shown.into_string());
    }
    PreEscaped(out)
}

impl TextLook {
    fn classes(self) -> String {
        let flags = [
            (self.is_bold, "bold"),
            (self.is_dim, "faint"),
            (self.is_italic, "italic"),
            (self.is_underlined, "underlined"),
            (self.is_inverse, "inverse"),
        ];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set);
        let mut classes: Vec<String> = flags.map(|(_, class)| class.to_owned()).collect();
        classes.extend(self.text.map(|colour| format!("fg{colour}")));
        classes.extend(self.ground.map(|colour| format!("bg{colour}")));
        classes.join(" ")
    }

    /// Applies the parameters of a sequence: `1;31`, `38;5;196`, `38:2::255:0:0`.
    fn apply(&mut self, parameters: &str) {
        let codes: Vec<u16> = parameters
            .split([';', ':'])
            .map(|code| code.parse().unwrap_or(0))
            .collect();
        let mut at = 0;
        while let Some(&code) = codes.get(at) {
            at += 1;
            match code {
                0 => *self = Self::default(),
                1 => self.is_bold = true,
                2 => self.is_dim = true,
                3 => self.is_italic = true,
                4 => self.is_underlined = true,
                7 => self.is_inverse = true,
                22 => (self.is_bold, self.is_dim) = (false, false),
                23 => self.is_italic = false,
                24 => self.is_underlined = false,
                27 => self.is_inverse = false,
                30..=37 => self.text = u8::try_from(code - 30).ok(),
                39 => self.text = None,
                40..=47 => self.ground = u8::try_from(code - 40).ok(),
                49 => self.ground = None,
                90..=97 => self.text = u8::try_from(code - 82).ok(),
                100..=107 => self.ground = u8::try_from(code - 92).ok(),
                38 | 48 => {
                    let (colour, taken) = extended_colour(&codes[at..]);
                    at += taken;
                    match code {
                        38 => self.text = colour,
                        _ => self.ground = colour,
                    }
                }
                _ => {}
            }
        }
    }
}

/// The nearest of sixteen colours to one of 256 or of all, and how many codes it takes.
fn extended_colour(codes: &[u16]) -> (Option<u8>, usize) {
    match *codes {
        [5, colour, ..] => (Some(nearest_of_256(colour)), 2),
        // With colons there is a colour space, often empty, before the colour.
        [2, 0, red, green, blue, ..] if codes.len() == 5 => (Some(nearest(red, green, blue)), 5),
        [2, red, green, blue, ..] => (Some(nearest(red, green, blue)), 4),
        _ => (None, codes.len()),
    }
}

fn nearest_of_256(colour: u16) -> u8 {
    match colour {
        0..=15 => u8::try_from(colour).unwrap_or(7),
        16..=231 => {
            let level = |part: u16| match part % 6 {
                0 => 0,
                part => 55 + part * 40,
            };
            let colour = colour - 16;
            nearest(level(colour / 36), level(colour / 6), level(colour))
        }
        _ => {
            let grey = 8 + (colour.min(255) - 232) * 10;
            nearest(grey, grey, grey)
        }
    }
}

fn nearest(red: u16, green: u16, blue: u16) -> u8 {
    let high = red.max(green).max(blue);
    let low = red.min(green).min(blue);
    if high.saturating_sub(low) < 40 {
        return match high {
            0..=60 => 0,
            61..=150 => 8,
            151..=220 => 7,
            _ => 15,
        };
    }
    let half = low + (high - low) / 2;
    let bit = |part: u16, bit: u8| if part > half { bit } else { 0 };
    let bright = if low > 90 { 8 } else { 0 };
    bit(red, 1) + bit(green, 2) + bit(blue, 4) + bright
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_classes_and_hostile_sequences_go() {
        for (text, shown) in [
            ("plain <b>", "plain &lt;b&gt;"),
            (
                "\x1b[1;31mred\x1b[0m plain",
                "<span class=\"bold fg1\">red</span> plain",
            ),
            (
                "\x1b[38;5;196mred\x1b[39mx",
                "<span class=\"fg1\">red</span>x",
            ),
            (
                "\x1b[38;2;90;255;90mgreen",
                "<span class=\"fg2\">green</span>",
            ),
            ("\x1b[38:2::250:10:10mred", "<span class=\"fg1\">red</span>"),
            ("\x1b[97;44mx", "<span class=\"fg15 bg4\">x</span>"),
            ("\x1b]0;title\x07\x1b[2J\x1b[Hx", "x"),
            (
                "\x1b]8;;javascript:alert(1)\x1b\\link\x1b]8;;\x1b\\",
                "link",
            ),
            (
                "\x1b[31m\u{202e}x",
                "<span class=\"fg1\"><i class=\"code-point\">U+202E</i>x</span>",
            ),
            ("\x1b[38;5mx", "x"),
        ] {
            assert_eq!(ansi_text(text).into_string(), shown, "{text:?}");
        }
    }
}
