//! Many rollouts in a few numbers: rates with the limit that the truth is below, medians, ninth deciles.

/// A share as people read it: `0.5%`.
#[must_use]
pub fn percent(share: f64) -> String {
    let value = share * 100.0;
    let digits = match value.abs() {
        0.0 => 0,
        v if v < 0.01 => 4,
        v if v < 0.1 => 3,
        v if v < 10.0 => 2,
        _ => 1,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}%")
}

/// Seconds as people read them: `3 s`, `12 min`.
#[must_use]
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s").replace(".0 s", " s"),
        s if s < 600.0 => format!("{s:.0} s"),
        s => format!("{:.0} min", s / 60.0),
    }
}

/// The value that this share of `sorted` is not above; `None` of nothing.
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// The average; `None` of nothing.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The largest rate at which `count` of `of` or fewer happen with a probability of 5%: Clopper and Pearson's upper limit.
#[must_use]
pub fn upper_limit(count: u64, of: u64) -> f64 {
    if count >= of {
        return 1.0;
    }
    let (mut low, mut high) = (count as f64 / of as f64, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if at_most(count, of, middle) > 0.05 {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The probability of `count` or fewer among `of`.
fn at_most(count: u64, of: u64, rate: f64) -> f64 {
    let choose = |k: f64| {
        libm::lgamma(of as f64 + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(of as f64 - k + 1.0)
    };
    let term = |k: u64| {
        let k = k as f64;
        libm::exp(choose(k) + k * libm::log(rate) + (of as f64 - k) * libm::log1p(-rate))
    };
    (0..=count).map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_limit_is_clopper_and_pearsons() {
        // Nothing in n: 1 − 0.05^(1/n).
        assert!((upper_limit(0, 100) - 0.029_513).abs() < 1e-6);
        assert!(
            (upper_limit(5, 1_000) - 0.010_478).abs() < 1e-5,
            "{}",
            upper_limit(5, 1_000)
        );
        assert_eq!(upper_limit(7, 7), 1.0);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.005, 0.0, 0.12345, 0.001, 1.0, 0.00004].map(percent),
            ["0.5%", "0%", "12.3%", "0.1%", "100%", "0.004%"]
        );
        assert_eq!(
            [3.0, 2.5, 64.4, 3162.0].map(time),
            ["3 s", "2.5 s", "64 s", "53 min"]
        );
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), Some(2.0));
        assert_eq!((quantile(&[], 0.5), mean(&[])), (None, None));
    }
}
