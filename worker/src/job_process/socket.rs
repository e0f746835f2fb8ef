//! The two sockets between a worker and a job's process: one for messages, one for further sockets.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::{
    io::Interest,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

/// Messages as they come.
pub(super) type FrameReader = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;
/// Takes messages.
pub(super) type FrameWriter = FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>;

/// Cuts a socket into messages of at most so many bytes in each direction.
pub(super) fn framed(socket: UnixStream, incoming: usize, outgoing: usize) -> (FrameReader, FrameWriter) {
    let (reading, writing) = socket.into_split();
    let codec = |limit| LengthDelimitedCodec::builder().max_frame_length(limit).new_codec();
    (FramedRead::new(reading, codec(incoming)), FramedWrite::new(writing, codec(outgoing)))
}

/// A socket of this process from one of std.
pub(super) fn from_std(socket: StdUnixStream) -> io::Result<UnixStream> {
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// Sends one socket over another.
pub(super) async fn send_socket(over: &UnixStream, socket: &OwnedFd) -> io::Result<()> {
    over.async_io(Interest::WRITABLE, || {
        let sockets = [socket.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::Error::other("no room for a socket in its message"));
        }
        sendmsg(over, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    })
    .await
}

/// Receives the next socket.
pub(super) async fn receive_socket(over: &UnixStream) -> io::Result<OwnedFd> {
    over.async_io(Interest::READABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(over, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let sockets = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
            _ => None,
        });
        sockets.ok_or_else(|| io::Error::other("a message without a socket"))
    })
    .await
}
