//! One file for each group of commands. A command parses, asks, prints; it decides nothing.

pub mod admin;
pub mod check;
pub mod demo;
pub mod eval;
pub mod ids;
pub mod init;
pub mod logs;
pub mod processes;
pub mod run;
pub mod server;
pub mod ship;
pub mod steer;
pub mod testing;
pub mod watch;
