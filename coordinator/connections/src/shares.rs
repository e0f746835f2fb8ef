//! Permits that clients share: so many in all, and so many for each. The clients of one network have a few times as many
//! together: somebody may have all of its addresses.
//!
//! When all are taken, one who has fewer than another gets a permit of who has the most: many clients that hold what they
//! can get keep nobody else out. A client of a network counts for its part of what that has, if this is more.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::client_address::{CLIENTS_OF_NETWORK, ClientAddress, ClientNetwork};

/// How many permits there are.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// In all.
    pub all: usize,
    /// For one client.
    pub each: usize,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The client has all that it may have.
    Client,
    /// All are taken, by others who have no more than this one.
    All,
}

/// Permits. Clones share them.
#[derive(Debug, Clone)]
pub struct Shares(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    limits: Limits,
    /// Permits are never given to another client.
    kept: bool,
    /// Permits that are taken.
    taken: usize,
    /// Number of the next permit.
    next: u64,
    /// Permits by client, the oldest first.
    clients: HashMap<ClientAddress, BTreeMap<u64, Entry>>,
    /// Permits by network.
    networks: HashMap<ClientNetwork, usize>,
}

#[derive(Debug)]
struct Entry {
    lost: CancellationToken,
    busy: Arc<AtomicUsize>,
}

/// A permit, which is free again when it is dropped.
#[derive(Debug)]
pub struct Permit {
    shares: Shares,
    /// `None`: it counts for no client.
    client: Option<ClientAddress>,
    number: u64,
    lost: CancellationToken,
    busy: Arc<AtomicUsize>,
}

/// Something is done in a permit; who looks for a permit to take takes idle ones first.
#[derive(Debug)]
pub struct Busy(Arc<AtomicUsize>);

impl Shares {
    /// So many permits.
    pub fn new(limits: Limits) -> Self {
        let (clients, networks) = (HashMap::new(), HashMap::new());
        Self(Arc::new(Mutex::new(Table { limits, kept: false, taken: 0, next: 0, clients, networks })))
    }

    /// So many permits, none of which is given to another client: for what does not end because its permit was lost.
    pub fn kept(limits: Limits) -> Self {
        let shares = Self::new(limits);
        shares.0.lock().kept = true;
        shares
    }

    /// Takes a permit for a client.
    ///
    /// # Errors
    /// There is none for it.
    pub fn enter(&self, client: ClientAddress) -> Result<Permit, Full> {
        let each = self.0.lock().limits.each;
        self.enter_up_to(client, each)
    }

    /// Takes a permit for a client that may have another number of them.
    ///
    /// # Errors
    /// There is none for it.
    pub fn enter_up_to(&self, client: ClientAddress, each: usize) -> Result<Permit, Full> {
        let mut table = self.0.lock();
        if table.of_client(client) >= each || table.of_network(client) >= each.saturating_mul(CLIENTS_OF_NETWORK) {
            return Err(Full::Client);
        }
        if table.taken >= table.limits.all && !table.make_room(Some(client)) {
            return Err(Full::All);
        }
        let number = table.take();
        let (lost, busy) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let entry = Entry { lost: lost.clone(), busy: busy.clone() };
        table.clients.entry(client).or_default().insert(number, entry);
        *table.networks.entry(client.network()).or_default() += 1;
        Ok(Permit { shares: self.clone(), client: Some(client), number, lost, busy })
    }

    /// Takes a permit that counts in all alone, for who is no client by itself: it is never taken away.
    ///
    /// # Errors
    /// There is none.
    pub fn enter_exempt(&self) -> Result<Permit, Full> {
        let mut table = self.0.lock();
        if table.taken >= table.limits.all && !table.make_room(None) {
            return Err(Full::All);
        }
        let number = table.take();
        Ok(Permit { shares: self.clone(), client: None, number, lost: CancellationToken::new(), busy: Arc::default() })
    }

    /// Permits that are taken.
    pub fn taken(&self) -> usize {
        self.0.lock().taken
    }
}

impl Table {
    fn take(&mut self) -> u64 {
        self.taken += 1;
        self.next += 1;
        self.next
    }

    fn of_client(&self, client: ClientAddress) -> usize {
        self.clients.get(&client).map_or(0, BTreeMap::len)
    }

    fn of_network(&self, client: ClientAddress) -> usize {
        self.networks.get(&client.network()).copied().unwrap_or(0)
    }

    /// What a client counts for, in parts of a permit of which [`CLIENTS_OF_NETWORK`] are one.
    fn weight(&self, client: ClientAddress) -> usize {
        self.of_network(client).max(self.of_client(client) * CLIENTS_OF_NETWORK)
    }

    /// Takes a permit from a client that has most, for one that has fewer, or none at all: an idle one, and of those the
    /// oldest. Who has some already must have fewer afterwards too, or two clients would take turns.
    fn make_room(&mut self, taker: Option<ClientAddress>) -> bool {
        if self.kept {
            return false;
        }
        let most = self.clients.keys().map(|client| self.weight(*client)).max().unwrap_or(0);
        let least = taker.map_or(0, |taker| {
            let more = if self.of_client(taker) > 0 { CLIENTS_OF_NETWORK } else { 0 };
            self.weight(taker) + more
        });
        if most <= least {
            return false;
        }
        let richest = self.clients.iter().filter(|(client, _)| self.weight(**client) == most);
        let permits =
            richest.flat_map(|(client, permits)| permits.iter().map(|(number, entry)| (*client, *number, entry)));
        let victim = permits.min_by_key(|(_, number, entry)| (entry.busy.load(Ordering::Relaxed) > 0, *number));
        let Some((client, number)) = victim.map(|(client, number, _)| (client, number)) else { return false };
        self.remove(client, number).is_some_and(|entry| {
            entry.lost.cancel();
            true
        })
    }

    fn remove(&mut self, client: ClientAddress, number: u64) -> Option<Entry> {
        let permits = self.clients.get_mut(&client)?;
        let entry = permits.remove(&number)?;
        if permits.is_empty() {
            self.clients.remove(&client);
        }
        if let Some(count) = self.networks.get_mut(&client.network()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.networks.remove(&client.network());
            }
        }
        self.taken = self.taken.saturating_sub(1);
        Some(entry)
    }
}

impl Permit {
    /// Resolves when the permit was given to another client: what is done in it has to end.
    pub fn lost(&self) -> WaitForCancellationFutureOwned {
        self.lost.clone().cancelled_owned()
    }

    /// The permit is used, until the answer is dropped.
    pub fn busy(&self) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.busy.clone())
    }

    /// From now on it counts for no client, and is not taken away. `false`: it was lost already.
    pub fn exempt(&mut self) -> bool {
        let Some(client) = self.client else { return true };
        let mut table = self.shares.0.lock();
        if table.remove(client, self.number).is_none() {
            return false;
        }
        table.taken += 1;
        drop(table);
        self.client = None;
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.shares.0.lock();
        match self.client {
            // A lost permit is no longer there.
            Some(client) => drop(table.remove(client, self.number)),
            None => table.taken = table.taken.saturating_sub(1),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn client(number: u8) -> ClientAddress {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)).into()
    }

    #[test]
    fn attack_59_what_can_not_be_ended_is_never_more_than_there_are_permits() {
        let shares = Shares::kept(Limits { all: 4, each: 4 });
        let permits: Vec<_> = (0..4).map(|_| shares.enter(client(1)).unwrap()).collect();
        assert_eq!(shares.enter(client(2)).unwrap_err(), Full::All);
        assert!(permits.iter().all(|permit| !is_lost(permit)));
        drop(permits);
        assert!(shares.enter(client(2)).is_ok());
    }

    fn is_lost(permit: &Permit) -> bool {
        permit.lost.is_cancelled()
    }

    #[test]
    fn a_client_has_so_many_places_and_gets_another_when_one_is_free() {
        let shares = Shares::new(Limits { all: 10, each: 2 });
        let mut held = vec![shares.enter(client(1)).unwrap(), shares.enter(client(1)).unwrap()];
        assert_eq!(shares.enter(client(1)).unwrap_err(), Full::Client);
        assert!(shares.enter(client(2)).is_ok() && shares.enter_up_to(client(1), 3).is_ok());
        held.pop();
        held.push(shares.enter(client(1)).unwrap());
        drop(held);
        assert_eq!((shares.taken(), shares.0.lock().clients.len()), (0, 0), "who has nothing is forgotten");
        assert!(shares.0.lock().networks.is_empty());
    }

    #[test]
    fn attack_59_the_many_addresses_of_one_ipv6_customer_are_few_clients() {
        let site =
            |number: usize| -> ClientAddress { format!("2001:db8:1:{number:x}::1").parse::<IpAddr>().unwrap().into() };
        let shares = Shares::new(Limits { all: 100, each: 10 });
        let few = [shares.enter(client(1)).unwrap(), shares.enter(client(1)).unwrap()];
        let many: Vec<Permit> = (0..1000).map_while(|number| shares.enter(site(number)).ok()).collect();
        assert_eq!(many.len(), 40, "as many as four clients");
        assert_eq!(shares.enter(site(2000)).unwrap_err(), Full::Client);
        // Where all are taken, the one with a permit from each of many addresses gives way, and not who has two.
        let others: Vec<Permit> = (0..58).map(|number| shares.enter(client(100 + number)).unwrap()).collect();
        let newcomer = shares.enter(client(200)).unwrap();
        assert!(many.iter().any(is_lost) && !few.iter().chain(&others).any(is_lost));
        assert_eq!(shares.enter(site(3000)).unwrap_err(), Full::All, "and takes nothing of who has less");
        drop((few, many, others, newcomer));
        assert!(shares.0.lock().networks.is_empty() && shares.taken() == 0);
    }

    #[test]
    fn who_has_fewer_gets_a_place_of_who_has_most() {
        let shares = Shares::new(Limits { all: 5, each: 5 });
        let many: Vec<Permit> = (0..4).map(|_| shares.enter(client(1)).unwrap()).collect();
        let one = shares.enter(client(2)).unwrap();
        let working = many[0].busy();
        let newcomer = shares.enter(client(3)).unwrap();
        let lost: Vec<bool> = many.iter().map(is_lost).collect();
        assert_eq!(lost, [false, true, false, false], "the oldest that is idle");
        assert!(!is_lost(&one) && shares.taken() == 5);
        assert_eq!(shares.enter(client(1)).unwrap_err(), Full::All, "who has most takes nothing");
        drop(working);
        let second = shares.enter(client(3)).unwrap();
        assert!(is_lost(&many[0]));
        drop((many, one, newcomer, second));
        assert_eq!(shares.taken(), 0, "a lost permit is not freed twice");
    }

    #[test]
    fn many_clients_with_one_place_each_do_not_keep_another_out() {
        let shares = Shares::new(Limits { all: 100, each: 5 });
        let held: Vec<Permit> = (0..100).map(|number| shares.enter(client(number)).unwrap()).collect();
        let newcomer = shares.enter(client(200)).unwrap();
        assert!(is_lost(&held[0]) && !is_lost(&newcomer));
        assert_eq!(shares.enter(client(200)).unwrap_err(), Full::All);
    }

    #[test]
    fn an_exempt_place_counts_in_all_and_is_never_taken() {
        let shares = Shares::new(Limits { all: 3, each: 1 });
        let mut proven = shares.enter(client(1)).unwrap();
        assert!(proven.exempt() && proven.exempt());
        let proxy = shares.enter_exempt().unwrap();
        let other = shares.enter(client(1)).unwrap();
        let mut next = shares.enter(client(2)).unwrap();
        assert!(is_lost(&other) && !is_lost(&proven) && !is_lost(&proxy));
        assert!(next.exempt());
        assert_eq!(shares.enter(client(3)).unwrap_err(), Full::All);
        let mut gone = other;
        assert!(!gone.exempt(), "what was lost can't be kept");
        drop((proven, proxy, gone, next));
        assert_eq!(shares.taken(), 0);
    }
}
