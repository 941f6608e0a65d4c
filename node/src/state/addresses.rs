//! What is known of where a peer is, from whom, and in which order it is tried.
//!
//! Addresses are opaque here. What matters is where one came from: each source has a share of its
//! own, so that none can push out what another one knows, and only what the peer itself told or what
//! worked is kept on disk.
//!
//! | source | places | on disk | |
//! | --- | --- | --- | --- |
//! | seen | 4 | no | the LAN says it at this moment (mDNS); anybody on the LAN can say anything |
//! | proven | 4 | yes | the peer was reached there, the last one first |
//! | configured | 8 | no, in `pimesh.toml` | `network.peers` |
//! | told | 16 | yes | by the peer itself on a verified connection, or in its ticket |
//! | hinted | 4 for each of 4 members | no | by another member |

use libp2p_identity::PeerId;

use crate::proto::mesh::{Address, sync::ADDRESSES_PER_PEER_MAX};

/// Most addresses that mDNS gives for a peer: half of what is dialled at once, so that lies do not
/// keep the others waiting.
const SEEN_MAX: usize = 4;

/// Most addresses that are remembered because they worked: two networks, two transports.
const PROVEN_MAX: usize = 4;

/// Most addresses of a peer that are taken from the configuration.
const CONFIGURED_MAX: usize = 8;

/// Most addresses of a peer that one other member gives: two networks, two transports.
const HINTS_PER_TELLER_MAX: usize = 4;

/// Most members of whom hints about a peer are kept.
const TELLERS_MAX: usize = 4;

/// The addresses of one peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    seen: Vec<Address>,
    proven: Vec<Address>,
    configured: Vec<Address>,
    told: Vec<Address>,
    hinted: Vec<(PeerId, Vec<Address>)>,
    /// Those that led nowhere when they were tried last.
    failed: Vec<Address>,
}

impl Addresses {
    /// Takes what was on disk.
    pub(super) fn load(stored: Vec<Address>) -> Self {
        Self {
            told: listed([&stored[..]], ADDRESSES_PER_PEER_MAX),
            ..Self::default()
        }
    }

    /// Returns all, in the order in which they are to be dialled.
    pub(super) fn to_dial(&self) -> Vec<Address> {
        let own = [&self.seen, &self.proven, &self.configured, &self.told];
        let hinted = self.hinted.iter().map(|(_, hinted)| hinted);
        listed(own.into_iter().chain(hinted).map(Vec::as_slice), usize::MAX)
    }

    /// Returns those that are kept on disk and told to other members.
    pub(super) fn to_keep(&self) -> Vec<Address> {
        listed([&self.proven[..], &self.told], ADDRESSES_PER_PEER_MAX)
    }

    pub(super) fn is_empty(&self) -> bool {
        let own = [&self.seen, &self.proven, &self.configured, &self.told];
        own.iter().all(|list| list.is_empty()) && self.hinted.is_empty()
    }

    /// Takes what the peer says of itself; what worked earlier and is not among it is over, unless
    /// it works now.
    pub(super) fn told_by_itself(&mut self, told: Vec<Address>, working: Option<&Address>) {
        self.proven
            .retain(|address| told.contains(address) || Some(address) == working);
        self.told = listed([&told[..]], ADDRESSES_PER_PEER_MAX);
        // It knows better than those who heard of it.
        self.hinted.clear();
    }

    /// Notes that the peer was reached here.
    pub(super) fn worked(&mut self, address: Address) {
        self.failed.retain(|failed| *failed != address);
        put_in_front(&mut self.proven, address, PROVEN_MAX);
    }

    /// Notes that these led nowhere.
    pub(super) fn failed(&mut self, failed: Vec<Address>) {
        self.failed = failed;
    }

    /// Notes that the LAN says that the peer is here. Whatever led nowhere gives way first, then
    /// what has been said for longest.
    pub(super) fn seen(&mut self, address: Address) {
        let is_new = !self.seen.contains(&address);
        if is_new && self.seen.len() >= SEEN_MAX {
            let led_nowhere = |seen: &Address| self.failed.contains(seen);
            let worst = self.seen.iter().rposition(led_nowhere);
            self.seen.remove(worst.unwrap_or(SEEN_MAX - 1));
        }
        put_in_front(&mut self.seen, address, SEEN_MAX);
    }

    /// Notes that the LAN says so no longer.
    pub(super) fn vanished(&mut self, address: &Address) {
        self.seen.retain(|seen| seen != address);
    }

    /// Takes what a member says of another one.
    pub(super) fn hinted(&mut self, teller: PeerId, addresses: &[Address]) {
        self.hinted.retain(|(known, _)| *known != teller);
        let hinted = listed([addresses], HINTS_PER_TELLER_MAX);
        if !hinted.is_empty() {
            self.hinted.insert(0, (teller, hinted));
            self.hinted.truncate(TELLERS_MAX);
        }
    }

    /// Takes an address from the configuration.
    pub(super) fn configured(&mut self, address: Address) {
        if self.configured.len() < CONFIGURED_MAX && !self.configured.contains(&address) {
            self.configured.push(address);
        }
    }

    /// Forgets what was configured, because the configuration was read again.
    pub(super) fn forget_configured(&mut self) {
        self.configured.clear();
    }
}

fn put_in_front(list: &mut Vec<Address>, address: Address, max: usize) {
    list.retain(|known| *known != address);
    list.insert(0, address);
    list.truncate(max);
}

/// Joins lists, each address once, up to a limit.
fn listed<'a>(lists: impl IntoIterator<Item = &'a [Address]>, max: usize) -> Vec<Address> {
    let mut all: Vec<Address> = Vec::new();
    for address in lists.into_iter().flatten() {
        if all.len() < max && !all.contains(address) {
            all.push(address.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mesh::peer_of_seed;

    fn some(what: &str, count: usize) -> Vec<Address> {
        let address = |n| Address::new(format!("{what}/{n}")).expect("legal");
        (0..count).map(address).collect()
    }

    fn one(what: &str) -> Address {
        Address::new(what).expect("legal")
    }

    #[test]
    fn no_source_pushes_out_what_another_one_knows() {
        let mut addresses = Addresses::default();
        addresses.told_by_itself(some("told", 16), None);
        addresses.worked(one("worked"));
        addresses.configured(one("configured"));
        addresses.hinted(peer_of_seed(2), &[one("hinted")]);

        for lie in some("lie", 1000) {
            addresses.seen(lie);
        }
        for seed in 3..100 {
            addresses.hinted(peer_of_seed(seed), &some("hint", 100));
        }

        let known = addresses.to_dial();
        let real = some("told", 16).into_iter();
        for address in real.chain([one("worked"), one("configured")]) {
            assert!(known.contains(&address), "{address} is gone");
        }
        let lies = known.iter().filter(|a| a.as_str().starts_with("lie"));
        assert_eq!(lies.count(), 4);
        assert!(known.len() <= 4 + 4 + 8 + 16 + 16, "{}", known.len());
    }

    #[test]
    fn only_what_the_peer_said_or_what_worked_is_kept() {
        let mut addresses = Addresses::load(some("stored", 3));
        addresses.seen(one("seen"));
        addresses.hinted(peer_of_seed(2), &[one("hinted")]);
        addresses.configured(one("configured"));
        assert_eq!(addresses.to_keep(), some("stored", 3));

        addresses.worked(one("seen"));

        let kept = addresses.to_keep();
        assert_eq!(kept[0], one("seen"));
        assert_eq!(kept[1..], some("stored", 3));
    }

    #[test]
    fn what_is_seen_at_this_moment_comes_first_and_what_is_hearsay_last() {
        let mut addresses = Addresses::load(vec![one("told")]);
        addresses.hinted(peer_of_seed(2), &[one("hinted")]);
        addresses.configured(one("configured"));
        addresses.worked(one("worked"));
        addresses.seen(one("seen"));

        let order = ["seen", "worked", "configured", "told", "hinted"].map(one);
        assert_eq!(addresses.to_dial(), order);
        addresses.vanished(&one("seen"));
        assert_eq!(addresses.to_dial(), order[1..]);
    }

    #[test]
    fn of_what_is_seen_that_which_led_nowhere_gives_way() {
        let mut addresses = Addresses::default();
        for address in some("seen", 4) {
            addresses.seen(address);
        }
        addresses.failed(vec![one("seen/2")]);

        addresses.seen(one("new"));

        let left = ["new", "seen/3", "seen/1", "seen/0"].map(one);
        assert_eq!(addresses.to_dial(), left);
    }

    #[test]
    fn what_worked_once_is_over_when_the_peer_says_where_it_is_now() {
        let mut addresses = Addresses::load(some("old", 2));
        addresses.worked(one("old/0"));
        addresses.worked(one("here"));

        addresses.told_by_itself(some("new", 2), Some(&one("here")));

        assert_eq!(addresses.to_keep()[0], one("here"));
        assert_eq!(addresses.to_keep()[1..], some("new", 2));
    }
}
