//! Text as expressions see it: case that doesn't matter, and numbers as .NET reads and writes them.

use std::cmp::Ordering;

/// The number that `text` counts as; NaN when it isn't one.
///
/// Blank is 0; decimal with a fraction and an exponent; `0x` and `0o` fill 32 bits and may therefore come out negative;
/// `Infinity`, with a sign or without, in any case.
#[must_use]
pub(crate) fn parse_number(text: &str) -> f64 {
    let text = text.trim();
    if text.is_empty() {
        return 0.0;
    }
    if is_decimal(text) {
        return text.parse().unwrap_or(f64::NAN);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    let (sign, word) = match text.as_bytes()[0] {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if word.eq_ignore_ascii_case("infinity") {
        sign * f64::INFINITY
    } else {
        f64::NAN
    }
}

/// `[sign] digits [. digits] [e [sign] digits]`, with a digit before or after the point.
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let whole = digits(rest);
    rest = &rest[whole..];
    let mut fraction = 0;
    if let Some(after) = rest.strip_prefix('.') {
        fraction = digits(after);
        rest = &after[fraction..];
    }
    if whole + fraction == 0 {
        return false;
    }
    if let Some(after) = rest.strip_prefix(['e', 'E']) {
        let after = after.strip_prefix(['+', '-']).unwrap_or(after);
        let exponent = digits(after);
        return exponent > 0 && exponent == after.len();
    }
    rest.is_empty()
}

/// 32 bits, read as .NET's `Int32` does: the highest bit is the sign.
fn radix(digits: &str, radix: u32) -> f64 {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return f64::NAN;
    }
    u32::from_str_radix(digits, radix).map_or(f64::NAN, |bits| f64::from(bits.cast_signed()))
}

/// At most 15 significant digits, as .NET's format `G15` writes them: `1E+15`, `1E-05`, `0.1`. Zero has no sign.
#[must_use]
pub(crate) fn format_number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{:.14e}", value.abs());
    let (mantissa, exponent) = scientific
        .split_once('e')
        .expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the format has an exponent");
    let all: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = match all.trim_end_matches('0') {
        "" => "0",
        digits => digits,
    };
    let sign = if value < 0.0 { "-" } else { "" };
    if (-4..15).contains(&exponent) {
        format!("{sign}{}", fixed(digits, exponent))
    } else {
        format!("{sign}{}", exponential(digits, exponent))
    }
}

fn fixed(digits: &str, exponent: i32) -> String {
    let Ok(exponent) = usize::try_from(exponent) else {
        return format!(
            "0.{}{digits}",
            "0".repeat(exponent.unsigned_abs() as usize - 1)
        );
    };
    let whole = exponent + 1;
    if digits.len() <= whole {
        return format!("{digits}{}", "0".repeat(whole - digits.len()));
    }
    format!("{}.{}", &digits[..whole], &digits[whole..])
}

fn exponential(digits: &str, exponent: i32) -> String {
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{first}{point}{rest}E{sign}{:02}", exponent.unsigned_abs())
}

/// One character in upper case, when it has one there; the dotless i and the long s stay, as in .NET.
fn upper(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_uppercase();
    }
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(single), None) if !matches!(c, '\u{131}' | '\u{17f}') => single,
        _ => c,
    }
}

/// `text` with its case taken away.
#[must_use]
pub(crate) fn fold(text: &str) -> String {
    text.chars().map(upper).collect()
}

/// Equal but for case.
#[must_use]
pub(crate) fn equal(left: &str, right: &str) -> bool {
    left.chars().map(upper).eq(right.chars().map(upper))
}

/// The order of the upper-cased texts by UTF-16 code unit, so that `'A'` is less than `'['`.
#[must_use]
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    let units = |text: &str| fold(text).encode_utf16().collect::<Vec<_>>();
    if left.is_ascii() && right.is_ascii() {
        return left
            .bytes()
            .map(|b| b.to_ascii_uppercase())
            .cmp(right.bytes().map(|b| b.to_ascii_uppercase()));
    }
    units(left).cmp(&units(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_with_fifteen_digits() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1 + 0.2, "0.3"),
            (123_456_789_012_345.0, "123456789012345"),
            (1_234_567_890_123_456.0, "1.23456789012346E+15"),
            (1e15, "1E+15"),
            (999_999_999_999_999.9, "1E+15"),
            (0.0001, "0.0001"),
            (0.000_012_3, "1.23E-05"),
            (1e-5, "1E-05"),
            (1e300, "1E+300"),
            (100.0, "100"),
            (12.34, "12.34"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(format_number(value), text);
        }
    }

    #[test]
    fn text_is_a_number_as_the_runner_reads_it() {
        for (text, value) in [
            ("", 0.0),
            ("  \n", 0.0),
            (" 12 ", 12.0),
            ("+1.5", 1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("-2e3", -2000.0),
            ("1E2", 100.0),
            ("0xff", 255.0),
            ("0xFFFFFFFF", -1.0),
            ("0o17", 15.0),
            ("1e999", f64::INFINITY),
            ("Infinity", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(parse_number(text), value, "{text:?}");
        }
        for text in [
            "a",
            "1a",
            "0x",
            "0xg",
            "0o8",
            "0X1",
            "-0x1",
            "0x1FFFFFFFF",
            "1e",
            "1e+",
            ".",
            "-",
            "1 2",
            "1,000",
            "NaN",
            "inf",
            "1_000",
            "١",
        ] {
            assert!(parse_number(text).is_nan(), "{text:?}");
        }
    }

    #[test]
    fn case_does_not_matter() {
        assert!(equal("Straße", "STRAßE"));
        assert!(!equal("Straße", "STRASSE"));
        assert_eq!(compare("a", "["), Ordering::Less);
        assert_eq!(compare("é", "É"), Ordering::Equal);
        assert!(!equal("ı", "I"));
    }
}
