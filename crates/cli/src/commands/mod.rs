//! One file for each group of commands. A command parses, asks, prints; it decides nothing.

mod addresses;
pub mod admin;
pub mod check;
pub mod demo;
pub mod eval;
pub mod ids;
pub mod init;
pub mod logs;
mod plot;
pub mod processes;
pub mod run;
pub mod server;
mod set_off;
pub mod shell;
pub mod ship;
pub mod simulate;
pub mod steer;
pub mod testing;
mod ties;
pub mod watch;

/// Jobs at once when nobody says: two for each core, for one that waits for its disk leaves room for another; at least four.
#[must_use]
pub fn jobs_max() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (2 * cores).max(4)
}
