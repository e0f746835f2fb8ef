//! The client's verbs.

pub(crate) mod api;
pub(crate) mod cancel;
pub(crate) mod chain;
pub(crate) mod keygen;
pub(crate) mod logs;
pub(crate) mod relay;
pub(crate) mod rerun;
pub(crate) mod runs;
pub(crate) mod show;
pub(crate) mod submit;
pub(crate) mod verify;
pub(crate) mod workers;
