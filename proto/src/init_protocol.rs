//! Version and limits of the protocol between worker and `longshore-init`.
//!
//! `longshore-init` includes this file by its path: it is built apart, and small, without the rest of this package.

/// Version of the protocol; both ends come from one build.
pub const INIT_PROTOCOL: u32 = 3;
/// Longest message between worker and init, in bytes.
pub const INIT_MESSAGE_LIMIT: usize = 16 * 1024 * 1024;
/// Bytes of one tunnelled connection that may be under way in each direction.
pub const TUNNEL_WINDOW: usize = 256 * 1024;
/// Tunnelled connections of one container at a time.
pub const TUNNEL_CONNECTIONS: usize = 32;
