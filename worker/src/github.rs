//! What GitHub's rules make of a step: its commands, files, shell, environment and actions.

pub mod action;
mod command_files;
pub mod commands;
pub(crate) mod contexts;
pub mod dockerfile;
mod environment;
pub mod files;
mod line_reader;
mod matcher;
mod names;
mod shell;
pub(crate) mod steps;
pub mod untrusted_checkout;
pub mod uses;
