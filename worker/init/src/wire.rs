//! Messages of `init.proto` and their framing: a varint length, then the message.

use std::io;

use prost::Message;

#[allow(missing_docs, unreachable_pub)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/longshore.init.v1.rs"));
}
pub(crate) use generated::*;

#[path = "../../../proto/src/init_protocol.rs"]
#[allow(unreachable_pub)]
mod init_protocol;
pub(crate) use init_protocol::{INIT_MESSAGE_LIMIT, INIT_PROTOCOL, TUNNEL_CONNECTIONS, TUNNEL_WINDOW};

/// Bytes of all file contents in one message, which leaves room for the rest of it.
pub(crate) const CONTENT_LIMIT: usize = 12 << 20;

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
            if length > INIT_MESSAGE_LIMIT {
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
