//! Tables of Markdown.

use shipway_sim::{
    chart::number,
    compare::ComparisonRow,
    summary::{percent, time},
};

use super::target;

/// Rows under a head.
pub struct Table(Vec<Vec<String>>);

impl Table {
    pub fn new(head: &[&str]) -> Self {
        Self(vec![head.iter().map(ToString::to_string).collect()])
    }

    pub fn row(&mut self, cells: &[String]) {
        self.0.push(cells.to_vec());
    }

    /// A judge beside our own; `least`: how many times as many it should harm at least.
    pub fn judged(
        &mut self,
        rate: f64,
        row: &ComparisonRow,
        own: &ComparisonRow,
        least: Option<f64>,
    ) {
        let times = row.harmed_mean / own.harmed_mean;
        let or_missed = |seconds: Option<f64>| seconds.map_or_else(|| "missed".to_owned(), time);
        let tuned = if row.tuned { ", tuned" } else { "" };
        self.row(&[
            percent(rate),
            format!("{}{tuned}", row.judge),
            row.setting.clone(),
            percent(row.false_rollbacks as f64 / row.runs as f64),
            percent(row.caught as f64 / row.runs as f64),
            or_missed(row.detect_median_s),
            row.detect_mean_s.map_or_else(|| "–".to_owned(), time),
            number(row.harmed_mean),
            format!("{times:.1}"),
            least.map_or_else(|| "–".to_owned(), |least| format!("≥ {least}")),
            least.map_or_else(|| "–".to_owned(), |least| target(times / least)),
        ]);
    }

    pub fn print(&self) {
        for (index, row) in self.0.iter().enumerate() {
            println!("| {} |", row.join(" | "));
            if index == 0 {
                println!("|{}", "---|".repeat(row.len()));
            }
        }
    }
}
