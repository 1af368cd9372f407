//! The real binary, from the outside: real git, real processes, real signals, real connections.

#![allow(
    dead_code,
    reason = "the parts that tests share grow ahead of their users"
)]

mod access;
mod accounts;
mod addresses;
mod browser;
mod calls;
mod commands;
mod confined;
mod conformance;
mod crashes;
mod days;
mod defaults;
mod deletion;
mod delivery_pages;
mod documentation;
mod doors;
mod durable;
mod elsewhere;
mod evidence;
mod examples;
mod faults;
mod first_use;
mod foreign_content;
mod gates;
mod getting_started;
mod github_files;
mod going_on;
mod guard;
mod help;
mod hostile;
mod identity;
mod input;
mod install_files;
mod journey;
mod kpi;
mod listener;
mod load;
mod local;
mod misbehaving;
mod monorepo;
mod notifications;
mod openid;
mod openid_provider;
mod pages;
mod people;
mod printed_commands;
mod reached;
mod real_apps;
mod remote_jobs;
mod retention;
mod rollout_page;
mod run_page;
mod runners;
mod runs;
mod screen;
mod secrets;
mod shop;
mod simulate;
mod site;
mod standing;
mod storage;
mod strategies;
mod testdata;
mod tied;
mod token;
mod tour;
mod turns;
mod twice;
mod unanswered;
mod waiting;
mod watching;
mod words;
