//! Which refused workers are logged: anybody may connect, and must not write the operator's log.

use std::{collections::HashSet, time::Duration};

use connections::client_address::ClientAddress;
use tokio::time::Instant;

/// In this time each address is logged once.
const PERIOD: Duration = Duration::from_secs(60);
/// Addresses that are logged in it.
const LINES: usize = 20;

/// Counts refused workers.
#[derive(Debug)]
pub(super) struct RefusalLog {
    begun: Instant,
    /// Those that were logged since.
    logged: HashSet<Option<ClientAddress>>,
    /// Refusals that were not.
    others: u64,
}

impl RefusalLog {
    pub(super) fn new(now: Instant) -> Self {
        Self { begun: now, logged: HashSet::new(), others: 0 }
    }

    /// Whether a refusal is to be logged, and how many before it were not.
    pub(super) fn count(&mut self, address: Option<ClientAddress>, now: Instant) -> Option<u64> {
        if now.duration_since(self.begun) >= PERIOD {
            (self.begun, self.logged) = (now, HashSet::new());
        }
        if self.logged.len() >= LINES || !self.logged.insert(address) {
            self.others += 1;
            return None;
        }
        Some(std::mem::take(&mut self.others))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn attack_59_strangers_write_few_lines_into_the_operators_log() {
        let begun = Instant::now();
        let mut log = RefusalLog::new(begun);
        let client = |number: u8| Some(ClientAddress::from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, number))));
        assert_eq!(log.count(client(0), begun), Some(0));
        assert_eq!((0..1000).filter_map(|_| log.count(client(0), begun)).count(), 0, "an address once");
        assert_eq!(log.count(client(1), begun), Some(1000), "the next line says how many there were");
        assert_eq!((2..=255).filter_map(|number| log.count(client(number), begun)).count(), LINES - 2);
        assert_eq!(log.count(client(0), begun + PERIOD), Some(256 - LINES as u64));
        assert_eq!(log.count(None, begun + PERIOD), Some(0));
    }
}
