//! Signatures that were used for an action (NIP-98): each is good once. They are remembered for as long as they would be
//! good, in bounded memories of which each key and each client has a share.

use std::collections::{HashMap, HashSet, VecDeque};

use connections::client_address::{CLIENTS_OF_NETWORK, ClientAddress, ClientNetwork};
use nostr::{EventId, PublicKey};
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

/// Whose signatures are remembered together: who may do little can't use up the room of who may do more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// Of those who began a session, as everybody may.
    Sessions,
    /// Of those who did what they may and others may not.
    Actions,
    /// Of operators, who have no share each.
    Operators,
}

/// A signature that was checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signature {
    pub(super) id: EventId,
    pub(super) key: PublicKey,
}

/// What was used, by [`Share`].
#[derive(Debug, Default)]
pub(super) struct SpentSignatures(Mutex<[Memory; 3]>);

#[derive(Debug, Default)]
struct Memory {
    used: HashSet<EventId>,
    /// When each is forgotten (Unix seconds), the first to go in front.
    order: VecDeque<(u64, EventId, PublicKey, ClientAddress)>,
    keys: HashMap<PublicKey, usize>,
    clients: HashMap<ClientAddress, usize>,
    networks: HashMap<ClientNetwork, usize>,
}

impl SpentSignatures {
    /// Uses a signature that is good for at most so many seconds from now.
    pub(super) fn spend(
        &self,
        Signature { id, key }: Signature,
        client: ClientAddress,
        share: Share,
        (now, good): (u64, u64),
    ) -> Result<(), NotTaken> {
        let mut memories = self.0.lock();
        let [sessions, actions, operators] = &mut *memories;
        let memory = match share {
            Share::Sessions => sessions,
            Share::Actions => actions,
            Share::Operators => operators,
        };
        memory.forget(now);
        if memory.used.contains(&id) {
            return Err(NotTaken::Used);
        }
        let has = |counts: Option<&usize>| counts.copied().unwrap_or(0);
        let many = has(memory.keys.get(&key)) >= OF_KEY
            || has(memory.clients.get(&client)) >= OF_CLIENT
            || has(memory.networks.get(&client.network())) >= OF_CLIENT * CLIENTS_OF_NETWORK;
        if many && share != Share::Operators {
            return Err(NotTaken::TooMany);
        }
        if memory.order.len() >= ALL {
            return Err(NotTaken::Full);
        }
        memory.used.insert(id);
        memory.order.push_back((now.saturating_add(good), id, key, client));
        *memory.keys.entry(key).or_default() += 1;
        *memory.clients.entry(client).or_default() += 1;
        *memory.networks.entry(client.network()).or_default() += 1;
        Ok(())
    }
}

impl Memory {
    fn forget(&mut self, now: u64) {
        while let Some((_, id, key, client)) = self.order.pop_front_if(|(until, ..)| *until < now) {
            self.used.remove(&id);
            less(&mut self.keys, &key);
            less(&mut self.clients, &client);
            less(&mut self.networks, &client.network());
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

    use nostr::Keys;

    use super::*;

    fn client(number: usize) -> ClientAddress {
        format!("2001:db8:{number:x}::1").parse::<IpAddr>().unwrap().into()
    }

    fn signature(key: PublicKey, number: usize) -> Signature {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Signature { id: EventId::from_byte_array(id), key }
    }

    #[test]
    fn a_signature_is_good_once_until_it_is_no_longer_good_at_all() {
        let (spent, key) = (SpentSignatures::default(), Keys::generate().public_key());
        let spend = |number, now| spent.spend(signature(key, number), client(1), Share::Actions, (now, 120));
        assert_eq!(spend(0, 1000), Ok(()));
        assert_eq!(spend(0, 1120), Err(NotTaken::Used));
        assert_eq!(spend(1, 1121), Ok(()));
        assert_eq!(spent.0.lock()[1].used.len(), 1, "the first is forgotten");
    }

    #[test]
    fn one_key_fills_its_share_alone_and_an_operator_has_room_of_his_own() {
        let (spent, [key, other]) = (SpentSignatures::default(), [(); 2].map(|()| Keys::generate().public_key()));
        let spend = |key, number, share| spent.spend(signature(key, number), client(1), share, (1000, 120));
        for number in 0..OF_KEY {
            assert_eq!(spend(key, number, Share::Actions), Ok(()));
        }
        assert_eq!(spend(key, OF_KEY, Share::Actions), Err(NotTaken::TooMany));
        assert_eq!(spend(other, OF_KEY, Share::Actions), Ok(()));
        assert_eq!(spend(key, OF_KEY, Share::Operators), Ok(()));
    }

    #[test]
    fn attack_59_the_many_addresses_of_one_ipv6_customer_fill_no_more_than_half() {
        let spent = SpentSignatures::default();
        let keys: Vec<PublicKey> = (0..ALL / OF_KEY).map(|_| Keys::generate().public_key()).collect();
        let site =
            |number: usize| -> ClientAddress { format!("2001:db8:1:{number:x}::1").parse::<IpAddr>().unwrap().into() };
        let spend = |number: usize, client| {
            spent.spend(signature(keys[number % keys.len()], number), client, Share::Sessions, (1000, 120))
        };
        let taken = (0..ALL).take_while(|number| spend(*number, site(*number)).is_ok()).count();
        assert_eq!(taken, ALL / 2);
        assert_eq!(spend(taken, site(9)), Err(NotTaken::TooMany));
        assert_eq!(spend(taken, client(2)), Ok(()));
    }

    #[test]
    fn attack_49_sessions_of_very_many_keys_keep_nobody_from_deciding() {
        let spent = SpentSignatures::default();
        let keys: Vec<PublicKey> = (0..ALL / OF_KEY).map(|_| Keys::generate().public_key()).collect();
        for number in 0..ALL {
            let (key, client) = (keys[number / OF_KEY], client(number / OF_KEY));
            assert_eq!(spent.spend(signature(key, number), client, Share::Sessions, (1000, 120)), Ok(()));
        }
        let (key, client) = (Keys::generate().public_key(), client(9999));
        assert_eq!(spent.spend(signature(key, ALL), client, Share::Sessions, (1000, 120)), Err(NotTaken::Full));
        assert_eq!(spent.spend(signature(key, ALL), client, Share::Actions, (1000, 120)), Ok(()));
    }
}
