//! The process that those of jobs are forked from. It has loaded this program and knows no job: what a new program would
//! cost each job, mapping and linking, is paid once, and waiting processes share their memory.
//!
//! It has one thread, which a fork needs, and blocks. Its standard input is a socket of messages, one answer for each.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use fork::{Fork, fork};
use rustix::{
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, send, sendmsg,
    },
    process::{Pid, WaitOptions, chdir, setpgid, waitpid},
    stdio::{dup2_stdin, dup2_stdout},
};

/// Bytes of a message: a path and its first byte.
const MESSAGE: usize = 4096 + 1;
/// Bytes of an answer: a number, little end first.
pub(super) const ANSWER: usize = 4;

/// What a process is once [`serve`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkRole {
    /// Its worker wants no more processes.
    Server,
    /// A job's process, which does nothing yet.
    Job,
}

/// What its worker asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ForkRequest<'a> {
    /// A process that works in this folder, where its temporary files are; two sockets come with the message, for its
    /// standard input and output. The answer is its number, or an error's, negative.
    Start(&'a Path),
    /// How a process ended that has ended. The answer is its status as `wait` gives it, or an error's number, negative.
    Status(Pid),
}

impl<'a> ForkRequest<'a> {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Start(folder) => [b"s", folder.as_os_str().as_bytes()].concat(),
            Self::Status(process) => [&b"w"[..], &process.as_raw_nonzero().get().to_le_bytes()].concat(),
        }
    }

    fn decode(message: &'a [u8]) -> Option<Self> {
        match message.split_first()? {
            (b's', folder) => Some(Self::Start(Path::new(std::ffi::OsStr::from_bytes(folder)))),
            (b'w', number) => Some(Self::Status(Pid::from_raw(i32::from_le_bytes(number.try_into().ok()?))?)),
            _ => None,
        }
    }

    /// Sends it. A message goes whole or not at all.
    pub(super) fn send(&self, socket: BorrowedFd<'_>, with: &[OwnedFd]) -> io::Result<()> {
        let sockets: Vec<_> = with.iter().map(|socket| socket.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::Error::other("no room for the sockets in their message"));
        }
        sendmsg(socket, &[IoSlice::new(&self.encode())], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Forks as it is told, over standard input. Returns in this process when its worker is gone, and once in each that it
/// forked.
///
/// # Errors
/// What is at its standard input is no worker; in a new process: its folder or its sockets can't be used.
pub fn serve() -> io::Result<ForkRole> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let mut buffer = vec![0; MESSAGE];
    loop {
        let mut sockets = Vec::new();
        let length = receive(&socket, &mut buffer, &mut sockets)?;
        let message = buffer.get(..length).unwrap_or_default();
        if message.is_empty() {
            return Ok(ForkRole::Server);
        }
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "a message of no known kind");
        let answer = match ForkRequest::decode(message).ok_or_else(invalid)? {
            ForkRequest::Start(folder) => match fork() {
                Ok(Fork::Child) => return become_job(folder, &sockets).map(|()| ForkRole::Job),
                Ok(Fork::Parent(process)) => {
                    // Before its worker hears of it, so that it can end the group from the first moment on.
                    let _ = Pid::from_raw(process).map(|process| setpgid(Some(process), Some(process)));
                    process
                }
                Err(error) => failure(&error),
            },
            ForkRequest::Status(process) => match waitpid(Some(process), WaitOptions::NOHANG) {
                Ok(Some((_, status))) => status.as_raw(),
                Ok(None) => failure(&io::ErrorKind::WouldBlock.into()),
                Err(error) => failure(&error.into()),
            },
        };
        send(&socket, &answer.to_le_bytes(), SendFlags::NOSIGNAL)?;
    }
}

/// An error as an answer.
fn failure(error: &io::Error) -> i32 {
    -error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error())
}

/// Gives the length of a message; 0: the other end is gone.
fn receive(socket: &OwnedFd, buffer: &mut [u8], sockets: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            sockets.extend(received);
        }
    }
    Ok(received.bytes)
}

fn become_job(folder: &Path, sockets: &[OwnedFd]) -> io::Result<()> {
    let [messages, further] = sockets else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a process needs two sockets"));
    };
    dup2_stdin(messages)?;
    dup2_stdout(further)?;
    chdir(folder)?;
    tempfile::env::override_temp_dir(folder).map_err(|_| io::Error::other("the temporary folder is set already"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requests_are_read_as_they_were_written() {
        let process = Pid::from_raw(4711).unwrap();
        for request in [ForkRequest::Start(Path::new("/a folder/ü")), ForkRequest::Status(process)] {
            assert_eq!(ForkRequest::decode(&request.encode()), Some(request));
        }
        for message in [&b""[..], b"x", b"w", b"w\0\0\0\0", b"w12345"] {
            assert_eq!(ForkRequest::decode(message), None, "{message:?}");
        }
    }
}
