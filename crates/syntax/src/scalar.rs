//! Scalars as people write them: durations, amounts of memory, cores.

use std::time::Duration;

/// Reads `250ms`, `2s`, `5m`, `1h30m`, `30d`. Units must be given and fall.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let mut rest = text.trim();
    let (mut total, mut largest) = (0u64, u64::MAX);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .filter(|end| *end > 0)?;
        let unit_end = rest[digits..]
            .find(|c: char| !c.is_ascii_alphabetic())
            .map_or(rest.len(), |end| digits + end);
        let (_, factor) = UNITS
            .iter()
            .find(|(unit, _)| *unit == &rest[digits..unit_end])?;
        if *factor >= largest {
            return None;
        }
        largest = *factor;
        let number: f64 = rest[..digits].parse().ok()?;
        let millis = number * *factor as f64;
        // A thousand years: more is a mistake.
        if !(0.0..=3.2e13).contains(&millis) {
            return None;
        }
        total += millis.round() as u64;
        rest = rest[unit_end..].trim_start();
    }
    Some(Duration::from_millis(total))
}

/// Reads `256MiB`, `1GiB`, `512M`, `1000000`.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let factor: u64 = match text[end..].trim() {
        "" | "B" => 1,
        "k" | "kB" => 1_000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "Ki" | "KiB" => 1 << 10,
        "Mi" | "MiB" => 1 << 20,
        "Gi" | "GiB" => 1 << 30,
        _ => return None,
    };
    let bytes = number * factor as f64;
    // 2⁵³: beyond it a float counts no single bytes.
    (0.0..9.0e15).contains(&bytes).then_some(bytes as u64)
}

/// Reads `1.5`, `500m` as thousandths of a core: from one thousandth to 1,024 cores.
#[must_use]
pub fn parse_cores(text: &str) -> Option<u32> {
    let text = text.trim();
    let (number, factor) = text
        .strip_suffix('m')
        .map_or((text, 1_000.0), |it| (it, 1.0));
    let millis = number.parse::<f64>().ok()? * factor;
    (1.0..=1_024_000.0)
        .contains(&millis)
        .then_some(millis.round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, millis) in [
            ("250ms", 250),
            ("2s", 2_000),
            ("1.5s", 1_500),
            ("1h30m", 5_400_000),
            ("30d", 2_592_000_000),
            ("0s", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for bad in [
            "",
            "5",
            "s",
            "5 parsecs",
            "-1s",
            "1s1h",
            "1m1m",
            "9999999999d",
            ".",
            "NaNs",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn memory_reads_in_both_kinds_of_units() {
        assert_eq!(parse_bytes("256MiB"), Some(268_435_456));
        assert_eq!(parse_bytes("1.5k"), Some(1_500));
        assert_eq!(parse_bytes("lots"), None);
        assert_eq!(parse_bytes("-1"), None);
    }

    #[test]
    fn cores_read_whole_and_in_thousandths() {
        for (text, millis) in [
            ("1.5", 1_500),
            ("500m", 500),
            ("0.001", 1),
            ("1024", 1_024_000),
        ] {
            assert_eq!(parse_cores(text), Some(millis), "{text}");
        }
        for bad in ["", "0", "m", "NaN", "inf", "-1", "1025", "2 cores"] {
            assert_eq!(parse_cores(bad), None, "{bad}");
        }
    }
}
