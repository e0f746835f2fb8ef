//! What a terminal shows: safe text, tables that fit it, a bar of what arrives, and a tree of jobs and steps that is
//! drawn again as it grows.

pub(crate) mod elapsed;
pub(crate) mod log_lines;
pub(crate) mod printable;
pub(crate) mod progress;
pub(crate) mod screen;
pub(crate) mod size;
pub(crate) mod table;
pub(crate) mod tree;
