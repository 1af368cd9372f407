//! The real binary, from the outside: real git, real processes, real signals, real connections.

#![allow(
    dead_code,
    reason = "the parts that tests share grow ahead of their users"
)]

mod days;
mod journey;
mod load;
mod shop;
mod site;
