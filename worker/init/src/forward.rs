//! Leads ports of the container's own localhost to services of the job, which have addresses of their own.
//!
//! Usage: `longshore-init forward PORT=ADDRESS:PORT …`. It returns once all ports are open; a process in the background
//! carries the connections until the container ends.

use std::{
    io::{self, BufRead, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// Connections of one port at a time; more wait.
const CONNECTIONS: usize = 256;
/// Bytes of a thread's stack.
const STACK: usize = 64 << 10;
/// What the background says when all ports are open.
const OPEN: &str = "open";

/// Starts the background and waits until its ports are open.
pub(crate) fn start(routes: &[String]) -> io::Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("carry")
        .args(routes)
        .env_clear()
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
    let mut said = String::new();
    BufReader::new(output).take(1024).read_line(&mut said)?;
    match said.trim() {
        OPEN => Ok(()),
        problem => Err(io::Error::other(problem.to_owned())),
    }
}

/// The background itself.
pub(crate) fn carry(routes: &[String]) -> io::Result<()> {
    let opened = open(routes);
    let said = opened.as_ref().map_or_else(ToString::to_string, |_| OPEN.to_owned());
    writeln!(io::stdout(), "{said}")?;
    let threads: Vec<_> =
        opened?.into_iter().map(|(listener, to)| thread::spawn(move || accept(&listener, to))).collect();
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn open(routes: &[String]) -> io::Result<Vec<(TcpListener, SocketAddr)>> {
    let mut opened = Vec::new();
    for route in routes {
        let wrong = || io::Error::other(format!("{route}: write PORT=ADDRESS:PORT"));
        let (port, to) = route.split_once('=').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let to = SocketAddr::V4(to.parse::<SocketAddrV4>().map_err(|_| wrong())?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|error| io::Error::new(error.kind(), format!("port {port} of localhost: {error}")))?;
        opened.push((listener, to));
        // Containers have no IPv6, as a rule; where they have, `localhost` may mean it.
        opened.extend(TcpListener::bind((Ipv6Addr::LOCALHOST, port)).ok().map(|listener| (listener, to)));
    }
    Ok(opened)
}

fn accept(listener: &TcpListener, to: SocketAddr) {
    let slots = Arc::new(Slots::default());
    loop {
        slots.take();
        let free = Arc::clone(&slots);
        let Ok((near, _)) = listener.accept() else {
            // No descriptors left, most likely: they come back.
            slots.give_back();
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let serve = move || {
            // A service that does not listen yet looks to the job as it would on its own port: closed.
            if let Ok(far) = TcpStream::connect(to) {
                let _ = join(&near, &far);
            }
            free.give_back();
        };
        if thread::Builder::new().stack_size(STACK).spawn(serve).is_err() {
            slots.give_back();
        }
    }
}

/// Carries both ways until both ends are done.
fn join(near: &TcpStream, far: &TcpStream) -> io::Result<()> {
    for stream in [near, far] {
        stream.set_nodelay(true)?;
    }
    let (mut from, mut to) = (near.try_clone()?, far.try_clone()?);
    let forth = thread::Builder::new().stack_size(STACK).spawn(move || copy(&mut from, &mut to))?;
    copy(&mut far.try_clone()?, &mut near.try_clone()?);
    let _ = forth.join();
    Ok(())
}

fn copy(from: &mut TcpStream, to: &mut TcpStream) {
    let mut buffer = [0; 16 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(count) if count > 0 => {
                if to.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

#[derive(Default)]
struct Slots {
    used: Mutex<usize>,
    freed: Condvar,
}

impl Slots {
    fn take(&self) {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used = self.freed.wait_while(used, |used| *used >= CONNECTIONS).unwrap_or_else(PoisonError::into_inner);
        *used += 1;
    }

    fn give_back(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.freed.notify_one();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_port_leads_to_another_and_both_ends_hear_each_other_out() {
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let opened = open(&[format!("{free}={}", far.local_addr().unwrap())]).unwrap();
        for (listener, to) in opened {
            thread::spawn(move || accept(&listener, to));
        }
        let mut near = TcpStream::connect(("127.0.0.1", free)).unwrap();
        near.write_all(b"question").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let (mut served, _) = far.accept().unwrap();
        let mut heard = String::new();
        served.read_to_string(&mut heard).unwrap();
        served.write_all(b"answer").unwrap();
        drop(served);
        let mut answer = String::new();
        near.read_to_string(&mut answer).unwrap();
        assert_eq!((heard.as_str(), answer.as_str()), ("question", "answer"));
    }

    #[test]
    fn what_is_no_route_or_taken_is_said() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        for route in ["x", "1=2", "70000=10.0.0.1:80", &format!("{port}=10.0.0.1:80")] {
            assert!(open(&[route.to_owned()]).is_err(), "{route}");
        }
    }
}
