//! Version ranges of `actions/setup-*`: npm's syntax and the actions' own aliases.

/// The numbers that are given, e.g. `[3, 11]`.
type VersionNumbers = Vec<u64>;

/// The newest LTS line of Node.js at the time of writing. Later LTS lines are accepted for `lts/*` as well.
const NEWEST_LTS: u64 = 24;

/// Whether a version matches a range: `3`, `3.11`, `3.x`, `>=18 <21`, `^1.2`, `lts/*`, `1.8`. Alternatives are
/// separated by `||`; of several lines all must match. Aliases such as `latest` and `stable` never match, because
/// their meaning changes.
pub(super) fn matches_range(version: &str, wanted: &str) -> bool {
    let Some(have) = parse_numbers(normalize_java(version)) else {
        return false;
    };
    let mut lines = wanted.lines().map(str::trim).filter(|it| !it.is_empty());
    lines.all(|line| {
        line.split("||")
            .any(|wanted| matches_alternative(&have, wanted.trim()))
    })
}

fn matches_alternative(have: &VersionNumbers, wanted: &str) -> bool {
    let major = have.first().copied().unwrap_or_default();
    let wanted = wanted.to_ascii_lowercase();
    match wanted.as_str() {
        "*" | "x" => return true,
        // Even major versions of Node.js are LTS releases.
        "lts/*" | "lts" => return major % 2 == 0 && major >= NEWEST_LTS,
        _ => {}
    }
    if let Some(name) = wanted.strip_prefix("lts/") {
        return lts_major(name) == Some(major);
    }
    if let Some((from, to)) = wanted.split_once(" - ") {
        return matches_operator(have, ">=", from) && matches_operator(have, "<=", to);
    }
    // Whitespace is allowed after an operator (`>= 18`).
    let mut wanted = wanted;
    for sign in [">=", "<=", ">", "<", "=", "^", "~"] {
        wanted = wanted.replace(&format!("{sign} "), sign);
    }
    let mut parts = wanted.split([' ', ',']).filter(|part| !part.is_empty());
    parts.all(|part| {
        let end = part.find(|c: char| !"<>=^~!".contains(c));
        let (sign, version) = part.split_at(end.unwrap_or(part.len()));
        matches_operator(have, sign, version)
    })
}

/// Whether a version matches an operator and a version.
fn matches_operator(have: &VersionNumbers, sign: &str, wanted: &str) -> bool {
    let Some(wanted) = parse_numbers(normalize_java(wanted.trim())) else {
        return false;
    };
    let begins = |length: usize| {
        let part = &wanted[..length.min(wanted.len())];
        have.starts_with(part)
    };
    let order = compare_versions(have, &wanted);
    match sign {
        "" | "=" | "==" => begins(wanted.len()),
        "!=" => !begins(wanted.len()),
        ">=" => order.is_ge(),
        "<=" => order.is_le() || begins(wanted.len()),
        ">" => order.is_gt() && !begins(wanted.len()),
        "<" => order.is_lt(),
        // The leftmost non-zero number must be equal.
        "^" => {
            let first = wanted.iter().position(|number| *number > 0).unwrap_or(0);
            order.is_ge() && begins(first + 1)
        }
        "~" | "~=" | "~>" => order.is_ge() && begins(if wanted.len() > 1 { 2 } else { 1 }),
        _ => false,
    }
}

fn compare_versions(a: &VersionNumbers, b: &VersionNumbers) -> std::cmp::Ordering {
    let length = a.len().max(b.len());
    let at = |version: &VersionNumbers, place: usize| version.get(place).copied().unwrap_or(0);
    let pairs = (0..length).map(|place| at(a, place).cmp(&at(b, place)));
    pairs
        .into_iter()
        .find(|order| order.is_ne())
        .unwrap_or(std::cmp::Ordering::Equal)
}

/// The numbers up to the first `x`; `None` if the text is no version.
fn parse_numbers(text: &str) -> Option<VersionNumbers> {
    // Strip pre-release and build metadata.
    let plain = text.split(['-', '+', '_']).next().unwrap_or(text);
    let plain = plain.trim_start_matches('v');
    let mut numbers = Vec::new();
    for part in plain.split('.') {
        match part.parse() {
            Ok(number) => numbers.push(number),
            Err(_) if matches!(part, "x" | "X" | "*") => break,
            Err(_) => return None,
        }
    }
    Some(numbers)
}

/// Java 8 calls itself 1.8.
fn normalize_java(version: &str) -> &str {
    match version.strip_prefix("1.") {
        Some(rest) if rest == "8" || rest.starts_with("8.") || rest.starts_with("8_") => rest,
        _ => version,
    }
}

/// The major version of a Node.js code name.
fn lts_major(name: &str) -> Option<u64> {
    let names = [
        "argon", "boron", "carbon", "dubnium", "erbium", "fermium", "gallium", "hydrogen", "iron",
        "jod", "krypton",
    ];
    let place = names.iter().position(|known| *known == name)?;
    Some(4 + 2 * place as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_match_as_setup_actions_mean_them() {
        for (version, wanted, expected) in [
            ("3.11.7", "3.11", true),
            ("3.11.7", "3.x", true),
            ("3.11.7", "3.12", false),
            ("3.11.7", "3.1", false),
            ("3.11.7", "3.10 || 3.11", true),
            ("3.11.7", ">=3.9 <3.12", true),
            ("3.13.0", ">=3.9 <3.12", false),
            ("3.11.7", ">= 3.9, < 3.12", true),
            ("3.13.1", "3.12 - 3.13", true),
            ("3.11.7", "pypy3.11", false),
            ("20.1.0", ">=18", true),
            ("20.1.0", ">20", false),
            ("21.0.0", ">20", true),
            ("20.1.0", "18 || 20", true),
            ("20.1.0", "18\n20\n", false),
            ("20.1.0", "20.x\n20\n", true),
            ("20.1.0", "lts/*", false),
            ("24.1.0", "lts/*", true),
            ("25.1.0", "lts/*", false),
            ("24.1.0", "lts/-1", false),
            ("24.1.0", "*", true),
            ("3.13.1", "3.13t", false),
            ("20.1.0", "lts/iron", true),
            ("20.1.0", "lts/jod", false),
            ("20.1.0", "v20", true),
            ("20.1.0", "nonsense", false),
            ("1.22.3", "^1.21", true),
            ("2.0.0", "^1.21", false),
            ("0.3.1", "^0.2.3", false),
            ("1.22.3", "~1.21.0", false),
            ("1.21.9", "~1.21.3", true),
            ("1.8.0", "8", true),
            ("1.8.0", "1.8", true),
            ("17.0.9", "8", false),
            ("17.0.9", "17-ea", true),
            ("8.0.101", "8.0.x", true),
            ("8.0.101", "latest", false),
            ("1.22.3", "stable", false),
        ] {
            assert_eq!(
                matches_range(version, wanted),
                expected,
                "{version} {wanted}"
            );
        }
    }
}
