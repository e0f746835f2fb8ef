//! Open files of the process: as many as the system allows, and some kept from connections.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Kept for the database, logs, mirrors, blobs and relays.
const RESERVED: u64 = 512;
/// More is not needed, and programs that inherit the limit may close every file up to it one by one.
const ENOUGH: u64 = 65_536;

/// Raises the limit of open files as far as needed and allowed, and says how many connections there may be: what
/// is left beside the files that everything else needs, and at most half of all.
pub fn connections(wanted: usize) -> usize {
    let allowed = raise_open_files();
    let room = usize::try_from(room(allowed)).unwrap_or(usize::MAX);
    if room < wanted {
        tracing::warn!(
            "only {room} connections are taken at a time, of {wanted} that limits.connections allows: the process may \
             have {allowed} open files; raise the hard limit (`LimitNOFILE=` of systemd, `ulimit -Hn`)"
        );
    }
    wanted.min(room)
}

fn room(allowed: u64) -> u64 {
    allowed.saturating_sub(RESERVED).max(allowed / 2)
}

fn raise_open_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return RESERVED };
    let wanted = hard.min(ENOUGH);
    if soft >= wanted {
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
        Ok(()) => wanted,
        Err(_) => soft,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_open_files_for_the_rest() {
        for (allowed, left) in [(1 << 20, (1 << 20) - 512), (4096, 3584), (1024, 512), (256, 128), (0, 0)] {
            assert_eq!(room(allowed), left, "{allowed}");
        }
    }
}
