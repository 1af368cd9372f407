//! Linear scales and axis ticks.

/// A stretch of values on a stretch of places.
#[derive(Clone, Copy, Debug)]
pub(super) struct AxisScale {
    from: f64,
    to: f64,
    first: f64,
    last: f64,
}

impl AxisScale {
    /// `from` lies at `first`, `to` at `last`.
    pub(super) fn new((from, to): (f64, f64), (first, last): (f64, f64)) -> Self {
        let to = if to > from { to } else { from + 1.0 };
        Self {
            from,
            to,
            first,
            last,
        }
    }

    /// The position of `value`, clamped to the ends of the scale.
    pub(super) fn position(self, value: f64) -> f64 {
        let share = ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0);
        self.first + share * (self.last - self.first)
    }
}

/// Round numbers from 0 to just above `top`: three to six of them.
pub(super) fn ticks(top: f64) -> Vec<f64> {
    if !(top.is_finite() && top > 0.0) {
        return vec![0.0, 1.0];
    }
    let magnitude = libm::pow(10.0, libm::floor(libm::log10(top / 3.0)));
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|it| it * magnitude)
        .into_iter()
        .find(|step| top / step <= 4.0)
        .unwrap_or(magnitude * 10.0);
    let count = libm::ceil(top / step - 1e-9) as usize;
    (0..=count.max(1))
        .map(|index| index as f64 * step)
        .collect()
}

/// Round times from 0 to below `seconds`, and how they are written.
pub(super) fn times(seconds: f64) -> Vec<(f64, String)> {
    const STEPS: [u32; 14] = [
        1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200,
    ];
    let step = STEPS
        .into_iter()
        .find(|step| seconds / f64::from(*step) <= 6.0)
        .map_or_else(|| libm::ceil(seconds / 6.0 / 3_600.0) * 3_600.0, f64::from);
    let written = |time: f64| match (step < 60.0 && seconds < 120.0, step < 3_600.0) {
        _ if time == 0.0 => "0".to_owned(),
        (true, _) => format!("{time} s"),
        (false, true) if step < 60.0 => format!("{}:{:02}", time as u64 / 60, time as u64 % 60),
        (false, true) => format!("{} min", time / 60.0),
        (false, false) => format!("{} h", time / 3_600.0),
    };
    let count = (seconds / step) as usize;
    (0..=count)
        .map(|index| index as f64 * step)
        .map(|time| (time, written(time)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_top() {
        assert_eq!(ticks(3.5), [0.0, 1.0, 2.0, 3.0, 4.0]);
        let small = ticks(0.0123);
        assert!(
            small.len() >= 3 && *small.last().unwrap() >= 0.0123,
            "{small:?}"
        );
        assert_eq!(ticks(0.0), [0.0, 1.0]);
        assert_eq!(ticks(f64::NAN), [0.0, 1.0]);
        for top in [1.0, 1.5, 2.0, 7.0, 9.9, 10.0, 250.0, 1e-6, 1e9] {
            let ticks = ticks(top);
            assert!(
                (3..=6).contains(&ticks.len()) && *ticks.last().unwrap() >= top * 0.999,
                "{top}: {ticks:?}"
            );
        }
    }

    #[test]
    fn times_are_few_and_written_shortly() {
        let written = |seconds| {
            times(seconds)
                .into_iter()
                .map(|(_, it)| it)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(written(35.0), "0 10 s 20 s 30 s");
        assert_eq!(written(720.0), "0 2 min 4 min 6 min 8 min 10 min 12 min");
        assert_eq!(written(150.0), "0 0:30 1:00 1:30 2:00 2:30");
        assert_eq!(written(9_000.0), "0 30 min 60 min 90 min 120 min 150 min");
        assert!(times(1e7).len() <= 8);
    }

    #[test]
    fn what_is_beyond_lies_on_the_end() {
        let scale = AxisScale::new((0.0, 2.0), (100.0, 0.0));
        assert_eq!(
            [-1.0, 0.0, 1.0, 5.0].map(|it| scale.position(it)),
            [100.0, 100.0, 50.0, 0.0]
        );
    }
}
