//! Docker Engine back end.
