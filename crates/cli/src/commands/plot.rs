//! The analysis as plots in the terminal, below the live lines of `shipway watch`. Without room nothing is drawn.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use shipway_analysis::plot::{ColorMode, MetricSeries, deciding_series, terminal};
use shipway_api::ApiClient;
use shipway_core::{ids::RolloutId, rollout::RolloutView};

use crate::{client::ServerConnection, live::TerminalSize, print::line};

/// From one look at the numbers to the next: they change each second.
const LOOK: Duration = Duration::from_secs(1);
/// The smallest useful plot.
const LEAST: TerminalSize = TerminalSize {
    columns: 36,
    rows: 6,
};
/// Larger, and it says no more.
const MOST: TerminalSize = TerminalSize {
    columns: 110,
    rows: 11,
};

/// A rollout's plot, fetched periodically.
pub struct Plot {
    rollout: RolloutId,
    ink: ColorMode,
    fetched_at: Option<Instant>,
    series: Option<MetricSeries>,
}

impl Plot {
    /// Without colours if `NO_COLOR` is set.
    #[must_use]
    pub fn new(rollout: RolloutId) -> Self {
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
        Self {
            rollout,
            ink: if is_plain {
                ColorMode::Plain
            } else {
                ColorMode::Colours
            },
            fetched_at: None,
            series: None,
        }
    }

    /// Its lines as of deciding_series now; none when there is nothing to draw or no room.
    pub fn lines(
        &mut self,
        server: &ServerConnection,
        view: &RolloutView,
        room: TerminalSize,
    ) -> Vec<String> {
        if self.fetched_at.is_none_or(|at| at.elapsed() >= LOOK) && view.judgement.is_some() {
            self.fetched_at = Some(Instant::now());
            self.series = self.fetch(server, view);
        }
        self.drawn(room)
    }

    /// Prints the final plot on a terminal.
    pub fn print(&mut self, server: &ServerConnection, view: &RolloutView, room: TerminalSize) {
        if std::io::stdout().is_terminal() {
            self.series = self.fetch(server, view);
            self.drawn(room).iter().for_each(|text| line(text));
        }
    }

    fn drawn(&self, room: TerminalSize) -> Vec<String> {
        let Some(series) = &self.series else {
            return Vec::new();
        };
        if room.columns < LEAST.columns || room.rows < LEAST.rows {
            return Vec::new();
        }
        let (columns, rows) = (room.columns.min(MOST.columns), room.rows.min(MOST.rows));
        let drawn = terminal(series, columns, rows, self.ink);
        drawn.lines().map(str::to_owned).collect()
    }

    /// The metric that caused the rollback, or the one that the verdict depends on. `None` if the server can't give it: the plot is
    /// optional.
    fn fetch(&self, server: &ServerConnection, view: &RolloutView) -> Option<MetricSeries> {
        let analysis = server.analysis(&self.rollout).ok()?;
        let metric = view.judgement.as_ref().and_then(|it| it.metric);
        deciding_series(&analysis.series, metric).cloned()
    }
}
