//! The forms of a secret to mask: the secret, each of its lines, and how base64, JSON, URLs, XML and shells encode
//! them.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};

/// Shorter secrets are not masked in encoded form: their encodings match too much.
const ENCODED_BYTES_MIN: usize = 4;

/// The widths at which `base64` and `openssl` wrap lines.
const WIDTHS: [usize; 2] = [76, 64];

/// All forms of a secret. They contain no line breaks, because logs are masked line by line.
pub(super) fn list_secret_forms(secret: &str) -> Vec<String> {
    let mut forms = Vec::new();
    let whole = secret.trim_end_matches(['\r', '\n']);
    let lines = secret.split(['\r', '\n']);
    for text in std::iter::once(whole).chain(lines) {
        for text in [text, text.trim()] {
            if text.trim().is_empty() {
                continue;
            }
            forms.push(text.to_owned());
            if text.len() >= ENCODED_BYTES_MIN {
                add_encodings(text, &mut forms);
            }
        }
    }
    forms.retain(|form| !form.contains(['\r', '\n']));
    forms
}

fn add_encodings(text: &str, forms: &mut Vec<String>) {
    // Escaped as in workflow commands.
    forms.push(text.replace('%', "%25"));
    let json = serde_json::to_string(text).unwrap_or_default();
    forms.push(json[1..json.len() - 1].to_owned());
    // PHP and others escape slashes in JSON.
    forms.push(json[1..json.len() - 1].replace('/', "\\/"));
    for form in [HexCase::Upper, HexCase::Lower] {
        let percent = percent_encode(text, form);
        forms.push(percent.replace("%20", "+"));
        forms.push(percent);
    }
    let xml = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    forms.push(xml.replace('"', "&quot;").replace('\'', "&apos;"));
    forms.push(xml.replace('"', "&quot;").replace('\'', "&#39;"));
    forms.push(xml);
    // Shells: inside '…', inside "…", unquoted (`printf %q`); then expressions and PowerShell.
    forms.push(text.replace('\'', "'\\''"));
    forms.push(text.replace('\'', "'\"'\"'"));
    forms.push(escape_chars(text, |c| "\"\\$`".contains(c)));
    forms.push(escape_chars(text, |c| {
        c.is_ascii() && !c.is_ascii_alphanumeric() && !"_-./:=@%+,".contains(c)
    }));
    forms.push(text.replace('\'', "''"));
    forms.push(text.trim_matches('"').to_owned());
    forms.retain(|form| !form.is_empty());
    add_base64_forms(text.as_bytes(), forms);
}

/// Base64 of the secret at each of the three possible alignments.
fn add_base64_forms(secret: &[u8], forms: &mut Vec<String>) {
    for (offset, from) in [(0, 0), (1, 2), (2, 3)] {
        let bytes = [&[0; 2][..offset], secret].concat();
        // The end of the characters that don't depend on the bytes after the secret.
        let to = bytes.len() * 4 / 3;
        for encoded in [STANDARD.encode(&bytes), URL_SAFE.encode(&bytes)] {
            if to < from + ENCODED_BYTES_MIN {
                continue;
            }
            for width in WIDTHS {
                let lines = encoded.as_bytes().chunks(width).skip(usize::from(from > 0));
                let lines = lines.filter(|line| line.len() >= 2 * ENCODED_BYTES_MIN);
                forms.extend(lines.map(|line| String::from_utf8_lossy(line).into_owned()));
            }
            forms.push(encoded[from..to].to_owned());
            // For a secret at the end of the encoded data.
            forms.push(encoded[from..].to_owned());
            forms.push(encoded[from..].trim_end_matches('=').to_owned());
        }
    }
}

fn escape_chars(text: &str, needs_it: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if needs_it(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[derive(Clone, Copy)]
enum HexCase {
    Upper,
    Lower,
}

fn percent_encode(text: &str, hex: HexCase) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match hex {
            _ if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => {
                out.push(char::from(byte));
            }
            HexCase::Upper => out.push_str(&format!("%{byte:02X}")),
            HexCase::Lower => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}
