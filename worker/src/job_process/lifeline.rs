//! Ends this process when its worker is gone, whatever else it does.

use std::{io, os::unix::net::UnixStream, thread};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Signal, getpgrp, kill_process_group},
};

/// Watches the other end of a socket on a thread of its own: tasks may be busy. What this process started ends with it.
pub(super) fn watch(socket: UnixStream) -> io::Result<()> {
    let gone = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
    thread::Builder::new().name("lifeline".into()).stack_size(64 << 10).spawn(move || {
        loop {
            let mut polled = [PollFd::new(&socket, PollFlags::RDHUP)];
            match poll(&mut polled, None) {
                Ok(_) if polled.iter().any(|polled| polled.revents().intersects(gone)) => {
                    let _ = kill_process_group(getpgrp(), Signal::KILL);
                    std::process::abort();
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => std::process::abort(),
            }
        }
    })?;
    Ok(())
}
