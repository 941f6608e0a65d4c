//! Keys of old clients and servers: pinned when they are first shown, and refused when they change.

use super::{Answer, Pin};
use crate::{
    limits::Source,
    proto::p2sn::PinAddress,
    state::{
        After, State,
        io::{Event, Failure, Record, Reply, RequestId},
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
                let after = After::Reply(request, Reply::P2sn(Answer::Judged(true)));
                self.pin_client(address, shown, after);
            }
        }
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

    /// Pins a key beside those that are there; a server has one alone.
    fn pin_client(&mut self, address: PinAddress, pin: Pin, after: After) {
        let is_server = matches!(address, PinAddress::Server { .. });
        let text = address.to_string();
        let pins = self.clients.pins.entry(address.clone()).or_default();
        let room = if is_server {
            0
        } else {
            KEYS_PER_ADDRESS_MAX - 1
        };
        let mut records = Vec::new();
        while pins.len() > room {
            records.push(Record::ForgetClientPin {
                address: text.clone(),
                fingerprint: pins.remove(0).fingerprint.0,
            });
        }
        pins.push(pin);
        self.clients.refused.remove(&address);
        records.push(Record::ClientPin {
            address: text,
            fingerprint: pin.fingerprint.0,
            bits: u32::try_from(pin.bits).unwrap_or(u32::MAX),
        });
        self.effects.store(records, Some(after));
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
        let after = After::Reply(request, Reply::P2sn(Answer::Keys(keys)));
        self.pin_client(address, pin, after);
    }

    pub(super) fn forget_client(&mut self, request: RequestId, text: &str) {
        let Some(address) = self.clients.resolve(text) else {
            let failure = Failure::not_found(format!("no key is pinned to `{text}`"));
            return self.effects.fail(
                request,
                failure.with_hint("`pimesh p2sn keys` lists those that are"),
            );
        };
        self.clients.refused.remove(&address);
        let pins = self.clients.pins.remove(&address).unwrap_or_default();
        let keys = pins
            .iter()
            .map(|pin| self.clients.report(&address, pin, false))
            .collect();
        let forget = |pin: &Pin| Record::ForgetClientPin {
            address: address.to_string(),
            fingerprint: pin.fingerprint.0,
        };
        let after = After::Reply(request, Reply::P2sn(Answer::Keys(keys)));
        self.effects
            .store(pins.iter().map(forget).collect(), Some(after));
    }

    pub(super) fn report_keys(&self) -> Vec<report::P2snKey> {
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
