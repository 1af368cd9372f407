//! What is judged, drawn in the terminal below the line that `shipway watch` keeps moving. Without room nothing is drawn.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use serde::Deserialize;
use shipway_analysis::plot::{Ink, Series, about, terminal};
use shipway_core::rollout::RolloutView;

use crate::{client::Server, print::line};

/// From one look at the numbers to the next: they change each second.
const LOOK: Duration = Duration::from_secs(1);
/// Narrower, and a plot says nothing.
const COLUMNS_MIN: usize = 60;
/// Wider, and it says no more.
const COLUMNS_MAX: usize = 110;
const LINES: usize = 11;

/// A rollout's plot, fetched anew as time goes by.
pub struct Plot {
    path: String,
    columns: usize,
    ink: Ink,
    looked: Option<Instant>,
    drawn: String,
}

/// What the API answers with, as far as it is drawn.
#[derive(Deserialize)]
struct Judged {
    series: Vec<Series>,
}

impl Plot {
    /// Of what is at this path of the API.
    #[must_use]
    pub fn new(path: String) -> Self {
        let ink = if std::env::var_os("NO_COLOR").is_none() {
            Ink::Colours
        } else {
            Ink::Plain
        };
        Self {
            path,
            columns: columns(),
            ink,
            looked: None,
            drawn: String::new(),
        }
    }

    /// As of about now, beginning with a line break; empty when there is nothing to draw or no room.
    pub fn below(&mut self, server: &Server, view: &RolloutView) -> &str {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK) && view.judgement.is_some() {
            self.looked = Some(Instant::now());
            let drawn = self.draw(server, view);
            self.drawn = if drawn.is_empty() {
                drawn
            } else {
                format!("\n{drawn}")
            };
        }
        &self.drawn
    }

    /// As it came out, when somebody looks at a terminal.
    pub fn print(&self, server: &Server, view: &RolloutView) {
        if std::io::stdout().is_terminal() {
            let drawn = self.draw(server, view);
            if !drawn.is_empty() {
                line(&drawn);
            }
        }
    }

    /// A plot is for the eye: where it can't be had, what is followed goes on without it.
    fn draw(&self, server: &Server, view: &RolloutView) -> String {
        if self.columns < COLUMNS_MIN {
            return String::new();
        }
        let judged = server
            .get::<Judged>(&self.path)
            .map(|it| it.series)
            .unwrap_or_default();
        let why = view
            .judgement
            .as_ref()
            .map(|judgement| judgement.verdict.why().to_owned())
            .unwrap_or_default();
        about(&judged, &why)
            .map(|series| terminal(series, self.columns, LINES, self.ink))
            .unwrap_or_default()
    }
}

/// How wide the terminal is that is drawn on; 0 when it is none.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.map_or(0, |size| usize::from(size.ws_col))
        .saturating_sub(1)
        .min(COLUMNS_MAX)
}
