//! The client's verbs.

pub(crate) mod chain;
pub(crate) mod keygen;
pub(crate) mod relay;
pub(crate) mod submit;
pub(crate) mod verify;
