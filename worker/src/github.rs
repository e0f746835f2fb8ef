//! What GitHub's rules make of a step: its commands, files, shell, environment and actions.

pub mod action;
pub mod commands;
pub mod dockerfile;
pub mod environment;
pub mod evaluate;
pub mod files;
pub mod matcher;
pub mod names;
pub mod shell;
pub mod untrusted_checkout;
pub mod uses;
