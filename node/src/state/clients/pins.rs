//! Keys of old clients and servers: pinned when they are first shown, and refused when they change.

use std::collections::BTreeSet;

use super::{Answer, Clients, Pin};
use crate::{
    limits::Source,
    proto::p2sn::{Fingerprint, PinAddress},
    state::{
        After, State,
        changes::Change,
        io::{ClientName, Event, Failure, Now, Record, Reply, RequestId},
        report,
    },
};

/// Most addresses with pinned keys. A stranger who could make room by coming from many addresses
/// could have the pins of others forgotten, so further addresses are refused instead.
const ADDRESSES_MAX: usize = 4096;

/// Most addresses with pinned keys in one IPv6 network of 64 bits: one machine has all addresses of
/// its network, and would fill the places of all others.
const ADDRESSES_PER_NETWORK_MAX: usize = 1024;

/// Most keys of clients at one address: programs of one machine, or machines behind one router.
const KEYS_PER_ADDRESS_MAX: usize = 16;

/// Most refused keys that are remembered for `pimesh p2sn trust`.
const REFUSED_MAX: usize = 256;

impl State {
    /// Rules P2SN-PIN-FIRST and P2SN-PIN-SEVERAL.
    pub(super) fn judge_client(
        &mut self,
        request: RequestId,
        address: PinAddress,
        shown: Pin,
        strict: bool,
    ) {
        let pins = self
            .clients
            .pins
            .get(&address)
            .map(Vec::as_slice)
            .unwrap_or_default();
        if pins.iter().any(|pin| pin.fingerprint == shown.fingerprint) {
            return self.judged(request, true);
        }
        let is_client = matches!(address, PinAddress::Client(_));
        match pins.last() {
            Some(pinned) if strict || !is_client => {
                let pinned = pinned.fingerprint;
                if self.clients.refused.len() >= REFUSED_MAX {
                    self.clients.refused.pop_first();
                }
                self.effects.refused(None, "p2sn_client_key", "changed");
                self.effects.event(Event::ClientKeyChanged {
                    address: address.to_string(),
                    pinned,
                    shown: shown.fingerprint,
                });
                self.clients.refused.insert(address, shown);
                self.judged(request, false);
            }
            None if self.clients.pins.len() >= ADDRESSES_MAX => {
                self.effects
                    .refused(None, "p2sn_client_key", "too_many_addresses");
                self.judged(request, false);
            }
            None if self.pins_of_network(&address) >= ADDRESSES_PER_NETWORK_MAX => {
                self.effects
                    .refused(None, "p2sn_client_key", "too_many_addresses_of_network");
                self.judged(request, false);
            }
            Some(_) | None => {
                // Others who come with another key meanwhile find this one pinned already.
                let (pinning, records) = self.clients.pinning(address, shown);
                self.clients.pinned(pinning.clone());
                let after = After::ClientPinned(request, Box::new(pinning));
                self.effects.store(records, Some(after));
            }
        }
    }

    pub(in crate::state) fn client_pinned(
        &mut self,
        request: RequestId,
        pinning: &Pinning,
        now: Now,
    ) {
        self.tell_of_pinning(pinning, now);
        self.judged(request, true);
    }

    /// The keys of a client are on disk, and others may hear who is there.
    pub(in crate::state) fn tell_of_pinning(&mut self, pinning: &Pinning, now: Now) {
        let displaced = pinning.displaced.iter();
        let keys = displaced.chain([&pinning.pin]).map(|pin| pin.fingerprint);
        self.tell_of_keys(&pinning.address, &keys.collect::<Vec<_>>(), now);
    }

    pub(in crate::state) fn tell_of_keys(
        &mut self,
        address: &PinAddress,
        keys: &[Fingerprint],
        now: Now,
    ) {
        let names = keys.iter().filter_map(|key| address.client_name(key));
        let (there, gone): (Vec<_>, Vec<_>) = names
            .filter_map(ClientName::new)
            .partition(|name| self.clients.has(name));
        let told: BTreeSet<ClientName> = self.clients.told().collect();
        // Where one goes, one that had no place among those that are told has it from here on.
        let to_tell: Vec<ClientName> = if gone.is_empty() {
            there
                .into_iter()
                .filter(|name| told.contains(name))
                .collect()
        } else {
            told.into_iter().chain(gone).collect()
        };
        self.tell_of_clients(&to_tell, now);
    }

    pub(in crate::state) fn client_not_pinned(
        &mut self,
        request: RequestId,
        pinning: Pinning,
        failure: Failure,
        now: Now,
    ) {
        self.clients.not_pinned(pinning.clone());
        // A connection may have opened meanwhile, on which all were told.
        self.tell_of_pinning(&pinning, now);
        self.effects.fail(request, failure);
    }

    /// Returns how many addresses with pinned keys are in the network of a client.
    fn pins_of_network(&self, address: &PinAddress) -> usize {
        let source = |address: &PinAddress| match address {
            PinAddress::Client(ip) => Some(Source::from(*ip)),
            PinAddress::Server { .. } => None,
        };
        let Some(network) = source(address) else {
            return 0;
        };
        let pinned = self.clients.pins.keys();
        pinned
            .filter(|&other| source(other) == Some(network))
            .count()
    }

    fn judged(&mut self, request: RequestId, may: bool) {
        let judged = Reply::P2sn(Answer::Judged(may));
        self.effects.reply(request, judged);
    }

    pub(super) fn trust_client(&mut self, request: RequestId, text: &str) {
        let found = self.clients.resolve(text);
        let refused = found.and_then(|a| self.clients.refused.get(&a).map(|p| (a.clone(), *p)));
        let Some((address, pin)) = refused else {
            let failure = Failure::not_found(format!("no key was refused for `{text}`"));
            return self.effects.fail(
                request,
                failure.with_hint("`pimesh p2sn keys` lists what was"),
            );
        };
        let keys = vec![self.clients.report(&address, &pin, false)];
        let (pinning, records) = self.clients.pinning(address, pin);
        let asked = Some((request, Reply::P2sn(Answer::Keys(keys))));
        self.change(asked, records, Change::ClientKey(pinning));
    }

    pub(super) fn forget_client(&mut self, request: RequestId, text: &str) {
        let Some(address) = self.clients.resolve(text) else {
            let failure = Failure::not_found(format!("no key is pinned to `{text}`"));
            return self.effects.fail(
                request,
                failure.with_hint("`pimesh p2sn keys` lists those that are"),
            );
        };
        let pins = self.clients.pins.get(&address);
        let pins = pins.map(Vec::as_slice).unwrap_or_default();
        let report = |pin: &Pin| self.clients.report(&address, pin, false);
        let reply = Reply::P2sn(Answer::Keys(pins.iter().map(report).collect()));
        let keys: Vec<Fingerprint> = pins.iter().map(|pin| pin.fingerprint).collect();
        let records = keys.iter().map(|key| forget_record(&address, *key));
        let records = records.collect();
        let change = Change::ForgetClientKeys(address, keys);
        self.change(Some((request, reply)), records, change);
    }

    pub(in crate::state) fn report_keys(&self) -> Vec<report::P2snKey> {
        let clients = &self.clients;
        let pinned = clients.pins.iter().flat_map(|(address, pins)| {
            pins.iter()
                .map(move |pin| clients.report(address, pin, false))
        });
        let refused = clients.refused.iter();
        let mut keys: Vec<_> = pinned
            .chain(refused.map(|(address, pin)| clients.report(address, pin, true)))
            .collect();
        keys.sort_by(|a, b| a.address.cmp(&b.address));
        keys
    }
}

/// A key that is pinned to an address, and those that give way to it.
#[derive(Clone, Debug)]
pub(in crate::state) struct Pinning {
    address: PinAddress,
    pin: Pin,
    displaced: Vec<Pin>,
    /// The key that was refused before, if this is it.
    refused: Option<Pin>,
}

impl Clients {
    /// Makes the change, and its records, that pins a key beside those that are there; a server has
    /// one alone.
    fn pinning(&self, address: PinAddress, pin: Pin) -> (Pinning, Vec<Record>) {
        let is_server = matches!(address, PinAddress::Server { .. });
        let room = if is_server {
            0
        } else {
            KEYS_PER_ADDRESS_MAX - 1
        };
        let pins = self.pins.get(&address);
        let pins = pins.map(Vec::as_slice).unwrap_or_default();
        let displaced = pins[..pins.len().saturating_sub(room)].to_vec();
        let gone = displaced.iter().map(|pin| pin.fingerprint);
        let mut records: Vec<Record> = gone.map(|key| forget_record(&address, key)).collect();
        records.push(Record::ClientPin {
            address: address.to_string(),
            fingerprint: pin.fingerprint.0,
            bits: u32::try_from(pin.bits).unwrap_or(u32::MAX),
        });
        let refused = self.refused.get(&address).copied();
        let pinning = Pinning {
            address,
            pin,
            displaced,
            refused: refused.filter(|refused| *refused == pin),
        };
        (pinning, records)
    }

    pub(in crate::state) fn pinned(&mut self, pinning: Pinning) {
        let Pinning {
            address,
            pin,
            displaced,
            refused,
        } = pinning;
        if refused.is_some() {
            self.refused.remove(&address);
        }
        let pins = self.pins.entry(address).or_default();
        pins.retain(|known| !displaced.contains(known) && *known != pin);
        pins.push(pin);
    }

    fn not_pinned(&mut self, pinning: Pinning) {
        let Pinning {
            address,
            pin,
            displaced,
            refused,
        } = pinning;
        let pins = self.pins.entry(address.clone()).or_default();
        pins.retain(|known| *known != pin);
        pins.splice(..0, displaced);
        if pins.is_empty() {
            self.pins.remove(&address);
        }
        if let Some(refused) = refused {
            self.refused.insert(address, refused);
        }
    }

    pub(in crate::state) fn forget_keys(&mut self, address: &PinAddress, keys: &[Fingerprint]) {
        self.refused.remove(address);
        if let Some(pins) = self.pins.get_mut(address) {
            pins.retain(|pin| !keys.contains(&pin.fingerprint));
            if pins.is_empty() {
                self.pins.remove(address);
            }
        }
    }
}

fn forget_record(address: &PinAddress, key: Fingerprint) -> Record {
    Record::ForgetClientPin {
        address: address.to_string(),
        fingerprint: key.0,
    }
}
