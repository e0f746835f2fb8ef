//! Joins the stages: what comes in becomes a run, what a run asks for is done.

mod engine;
mod runs;

pub use engine::{Applied, Engine};
