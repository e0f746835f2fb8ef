//! Tests of runs as a whole; those of one part stand beside it.

mod cases;
mod properties;
mod sharing;
