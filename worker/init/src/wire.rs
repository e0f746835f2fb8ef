//! Messages of `init.proto` and their framing: a varint length, then the message.

use std::io;

use prost::Message;

#[allow(missing_docs, unreachable_pub)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/longshore.init.v1.rs"));
}
pub(crate) use generated::*;

/// Version of the protocol told in `Ready`.
pub(crate) const PROTOCOL: u32 = 2;
/// Bytes of one message.
pub(crate) const MESSAGE_LIMIT: usize = 16 << 20;
/// Bytes of all file contents in one message, which leaves room for the rest of it.
pub(crate) const CONTENT_LIMIT: usize = 12 << 20;

/// Bytes of one tunnelled connection that may be under way in each direction.
pub(crate) const TUNNEL_WINDOW: usize = 256 << 10;
/// Tunnelled connections at a time.
pub(crate) const TUNNEL_CONNECTIONS: usize = 32;

/// Reads the next message; `None` at the end of input.
pub(crate) fn read(input: &mut impl io::Read) -> io::Result<Option<ToInit>> {
    let mut length = 0_usize;
    for shift in (0..28).step_by(7) {
        let mut byte = [0_u8];
        if input.read(&mut byte)? == 0 {
            return Ok(None);
        }
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            if length > MESSAGE_LIMIT {
                break;
            }
            let mut body = vec![0; length];
            input.read_exact(&mut body)?;
            return ToInit::decode(body.as_slice()).map(Some).map_err(io::Error::other);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a message from the worker is longer than 16 MiB"))
}

/// A `Failed` answer.
pub(crate) fn failed(of: failed::Of, error: &io::Error) -> from_init::Message {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => FailedKind::NotFound,
        io::ErrorKind::PermissionDenied => FailedKind::Permission,
        _ => FailedKind::Other,
    };
    from_init::Message::Failed(Failed { of: Some(of), kind: kind.into(), message: error.to_string() })
}

/// Adds what was being done to an I/O error and keeps its kind.
pub(crate) fn context(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}
