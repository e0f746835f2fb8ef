//! Signatures that were used for an action (NIP-98): each is good once. They are remembered for as long as they would be
//! good, in a bounded memory of which each key and each client has a share.

use std::collections::{HashMap, HashSet, VecDeque};

use connections::client_address::ClientAddress;
use nostr::{Event, EventId, PublicKey};
use parking_lot::Mutex;

/// Signatures that are remembered, and of those one key's and one client's.
const ALL: usize = 16_384;
const OF_KEY: usize = 256;
const OF_CLIENT: usize = 2048;

/// Why a signature is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// It was used before.
    Used,
    /// Its key or its client signed too much.
    TooMany,
    /// Too many were signed by others.
    Full,
}

/// What was used. Operators have as much room again, of their own.
#[derive(Debug, Default)]
pub(super) struct SpentSignatures(Mutex<[Memory; 2]>);

#[derive(Debug, Default)]
struct Memory {
    used: HashSet<EventId>,
    /// When each is forgotten (Unix seconds), the first to go in front.
    order: VecDeque<(u64, EventId, PublicKey, ClientAddress)>,
    keys: HashMap<PublicKey, usize>,
    clients: HashMap<ClientAddress, usize>,
}

impl SpentSignatures {
    /// Uses a signature that is good for at most so many seconds from now.
    pub(super) fn spend(
        &self,
        event: &Event,
        client: ClientAddress,
        is_operator: bool,
        (now, good): (u64, u64),
    ) -> Result<(), NotTaken> {
        let mut both = self.0.lock();
        let [strangers, operators] = &mut *both;
        let memory = if is_operator { operators } else { strangers };
        memory.forget(now);
        if memory.used.contains(&event.id) {
            return Err(NotTaken::Used);
        }
        let has = |counts: Option<&usize>| counts.copied().unwrap_or(0);
        let many = has(memory.keys.get(&event.pubkey)) >= OF_KEY || has(memory.clients.get(&client)) >= OF_CLIENT;
        if many && !is_operator {
            return Err(NotTaken::TooMany);
        }
        if memory.order.len() >= ALL {
            return Err(NotTaken::Full);
        }
        memory.used.insert(event.id);
        memory.order.push_back((now.saturating_add(good), event.id, event.pubkey, client));
        *memory.keys.entry(event.pubkey).or_default() += 1;
        *memory.clients.entry(client).or_default() += 1;
        Ok(())
    }
}

impl Memory {
    fn forget(&mut self, now: u64) {
        while let Some((_, id, key, client)) = self.order.pop_front_if(|(until, ..)| *until < now) {
            self.used.remove(&id);
            less(&mut self.keys, &key);
            less(&mut self.clients, &client);
        }
    }
}

fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::IpAddr;

    use nostr::{EventBuilder, Keys, Kind, Tag};

    use super::*;

    fn signed(keys: &Keys, number: usize) -> Event {
        let event = EventBuilder::new(Kind::Custom(27235), "").tag(Tag::parse(["nonce", &number.to_string()]).unwrap());
        event.sign_with_keys(keys).unwrap()
    }

    #[test]
    fn a_signature_is_good_once_until_it_is_no_longer_good_at_all() {
        let (spent, keys) = (SpentSignatures::default(), Keys::generate());
        let client = "192.0.2.1".parse::<IpAddr>().unwrap().into();
        let event = signed(&keys, 0);
        assert_eq!(spent.spend(&event, client, false, (1000, 120)), Ok(()));
        assert_eq!(spent.spend(&event, client, false, (1120, 120)), Err(NotTaken::Used));
        assert_eq!(spent.spend(&signed(&keys, 1), client, false, (1121, 120)), Ok(()));
        assert_eq!(spent.0.lock()[0].used.len(), 1, "the first is forgotten");
    }

    #[test]
    fn one_key_fills_its_share_alone_and_an_operator_has_room_of_his_own() {
        let (spent, keys) = (SpentSignatures::default(), Keys::generate());
        let client = "192.0.2.1".parse::<IpAddr>().unwrap().into();
        for number in 0..OF_KEY {
            assert_eq!(spent.spend(&signed(&keys, number), client, false, (1000, 120)), Ok(()));
        }
        assert_eq!(spent.spend(&signed(&keys, OF_KEY), client, false, (1000, 120)), Err(NotTaken::TooMany));
        assert_eq!(spent.spend(&signed(&Keys::generate(), 0), client, false, (1000, 120)), Ok(()));
        assert_eq!(spent.spend(&signed(&keys, OF_KEY), client, true, (1000, 120)), Ok(()));
    }
}
