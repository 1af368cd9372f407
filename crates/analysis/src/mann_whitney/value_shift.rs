//! The Mann-Whitney U test as a range: by how much the values of one side are above those of the other.
//!
//! As R's `wilcox.test(experiment, control, conf.int = TRUE, exact = FALSE)` has it and Kayenta follows: the range holds
//! the shifts that the test, with its normal approximation, corrections for continuity and for ties, doesn't reject. R and
//! Kayenta search for its ends to within 10⁻⁴; here they are found to the last digit, which matters for error rates.

/// The range of the shift, and the Hodges-Lehmann estimate: the median of all differences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ValueShift {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) estimate: f64,
}

/// Halvings after which a double has no more digits to give.
const HALVINGS: usize = 100;

/// By how much `experiment` is above `control`; `z` is the normal quantile of the confidence. Neither may be empty.
pub(super) fn shift(experiment: &[f64], control: &[f64], z: f64) -> ValueShift {
    let ends = |values: &[f64]| {
        values
            .iter()
            .fold((f64::MAX, f64::MIN), |(low, high), value| {
                (low.min(*value), high.max(*value))
            })
    };
    let ((low_x, high_x), (low_y, high_y)) = (ends(experiment), ends(control));
    let (least, most) = (low_x - high_y, high_x - low_y);
    if least >= most || (low_x == high_x && low_y == high_y) {
        // Zero variance on both sides: the shift is exact.
        return ValueShift {
            low: least,
            high: most,
            estimate: least + (most - least) / 2.0,
        };
    }
    let statistic = |shift: f64| statistic(experiment, control, shift);
    let (first, last) = (statistic(least), statistic(most));
    // Where the statistic falls below `level`; it only ever falls.
    let falls_below = |level: f64, or_at: bool| {
        let is_above = |value: f64| value > level || (or_at && value >= level);
        if !is_above(first) {
            return least;
        }
        if is_above(last) {
            return most;
        }
        let (mut low, mut high) = (least, most);
        for _ in 0..HALVINGS {
            let middle = low + (high - low) / 2.0;
            if is_above(statistic(middle)) {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    };
    let middle = (falls_below(0.0, false), falls_below(0.0, true));
    ValueShift {
        low: falls_below(z, false),
        high: falls_below(-z, false),
        estimate: middle.0 + (middle.1 - middle.0) / 2.0,
    }
}

/// The standardised rank sum of `x − shift` among both; zero if all values are tied.
fn statistic(x: &[f64], y: &[f64], shift: f64) -> f64 {
    let (of_x, of_y) = (x.len() as f64, y.len() as f64);
    let moved = x.iter().map(|value| (value - shift, true));
    let mut all: Vec<(f64, bool)> = moved.chain(y.iter().map(|value| (*value, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut rank_sum, mut ties, mut done) = (0.0, 0.0, 0.0);
    for tied in all.chunk_by(|a, b| a.0 == b.0) {
        let count = tied.len() as f64;
        let rank = done + f64::midpoint(count, 1.0);
        rank_sum += rank * tied.iter().filter(|(_, is_x)| *is_x).count() as f64;
        ties += count * count * count - count;
        done += count;
    }
    let above = rank_sum - of_x * (of_x + 1.0) / 2.0 - of_x * of_y / 2.0;
    let all = of_x + of_y;
    let variance = of_x * of_y / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    if variance <= 0.0 || above == 0.0 {
        return 0.0;
    }
    (above - 0.5_f64.copysign(above)) / libm::sqrt(variance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(shift: ValueShift, low: f64, high: f64, estimate: f64) {
        for (got, wanted) in [
            (shift.low, low),
            (shift.high, high),
            (shift.estimate, estimate),
        ] {
            assert!((got - wanted).abs() < 1e-4, "{shift:?}");
        }
    }

    #[test]
    fn ranges_are_those_of_r_and_kayenta() {
        let (control, experiment) = ([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]);
        close(shift(&experiment, &control, 1.959_964), 6.0, 39.0, 22.5);
        close(shift(&control, &experiment, 1.959_964), -39.0, -6.0, -22.5);
    }

    #[test]
    fn sides_that_never_change_are_as_far_apart_as_they_are() {
        close(shift(&[5.0; 20], &[3.0; 20], 2.0), 2.0, 2.0, 2.0);
        close(shift(&[5.0], &[3.0], 2.0), 2.0, 2.0, 2.0);
    }

    #[test]
    fn equal_sides_hold_zero() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..50 {
            let mut side = || (0..60).map(|_| random.f64()).collect::<Vec<_>>();
            let shift = shift(&side(), &side(), 3.5);
            assert!(shift.low < 0.0 && shift.high > 0.0, "{shift:?}");
            assert!(shift.low < shift.estimate && shift.estimate < shift.high);
        }
    }
}
