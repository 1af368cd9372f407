//! A small shop: items, orders, and health that says what is wrong. What it answers is decided in [`api`]; what it
//! remembers is in [`journal`]; sockets and signals are in `main`.

pub mod api;
pub mod journal;
