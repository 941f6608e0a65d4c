//! How many failures and messages the door takes from one address in a minute: rules P2SN-FAILURES
//! and P2SN-MESSAGES.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What is counted together.
const WINDOW: Duration = Duration::from_secs(60);

/// Failed sessions from one address in a minute. Each lets a stranger try one block of his own
/// making on this node's key, and an attack of that kind needs thousands.
const FAILURES_MAX: u32 = 20;

/// Messages from one address in a minute, so that a flood does not push everything else out of the
/// history.
const MESSAGES_MAX: u32 = 1200;

/// Addresses that are remembered. When there are more, those whose minute is over are forgotten,
/// and if none is, all.
const ADDRESSES_MAX: usize = 4096;

/// What addresses did in their present minute.
#[derive(Debug, Default)]
pub(super) struct Patience(Mutex<HashMap<IpAddr, Minute>>);

#[derive(Debug)]
struct Minute {
    began: Instant,
    failures: u32,
    messages: u32,
}

impl Patience {
    /// Says whether this address may connect.
    pub(super) fn may_come(&self, address: IpAddr) -> bool {
        self.at(address, Instant::now(), |minute| {
            minute.failures < FAILURES_MAX
        })
    }

    /// Says whether this address may send a message, and counts it.
    pub(super) fn may_send(&self, address: IpAddr) -> bool {
        self.at(address, Instant::now(), |minute| {
            minute.messages += 1;
            minute.messages <= MESSAGES_MAX
        })
    }

    /// Counts a session that failed.
    pub(super) fn failed(&self, address: IpAddr) {
        self.at(address, Instant::now(), |minute| minute.failures += 1);
    }

    fn at<T>(&self, address: IpAddr, now: Instant, then: impl FnOnce(&mut Minute) -> T) -> T {
        let mut minutes = self.minutes();
        let is_over = |minute: &Minute| now.duration_since(minute.began) >= WINDOW;
        let network = network(address);
        if minutes.len() >= ADDRESSES_MAX && !minutes.contains_key(&network) {
            minutes.retain(|_, minute| !is_over(minute));
            if minutes.len() >= ADDRESSES_MAX {
                minutes.clear();
            }
        }
        let fresh = || Minute {
            began: now,
            failures: 0,
            messages: 0,
        };
        let minute = minutes.entry(network).or_insert_with(fresh);
        if is_over(minute) {
            *minute = fresh();
        }
        then(minute)
    }

    fn minutes(&self) -> MutexGuard<'_, HashMap<IpAddr, Minute>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns what stands for an address: of an IPv6 address its first 64 bits, for one machine has
/// all the others.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn an_address_that_failed_twenty_times_waits_for_the_minute_to_end() {
        let patience = Patience::default();
        for _ in 0..19 {
            patience.failed(HERE);
        }
        assert!(patience.may_come(HERE));

        patience.failed(HERE);

        assert!(!patience.may_come(HERE));
        assert!(patience.may_come(IpAddr::from([10, 0, 0, 1])));
        let later = Instant::now() + Duration::from_secs(60);
        assert!(patience.at(HERE, later, |minute| minute.failures == 0));
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_as_one() {
        let patience = Patience::default();
        let [one, other, far]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::2:3:4:5", "2001:db8:0:1::1"]
                .map(|a| a.parse().expect("one"));
        for _ in 0..20 {
            patience.failed(one);
        }

        assert!(!patience.may_come(other));
        assert!(patience.may_come(far));
    }

    #[test]
    fn messages_of_an_address_have_a_budget() {
        let patience = Patience::default();
        let taken = (0..1300).filter(|_| patience.may_send(HERE)).count();
        assert_eq!(taken, 1200);
    }

    #[test]
    fn the_addresses_that_are_remembered_are_limited() {
        let patience = Patience::default();
        for number in 0..10_000_u32 {
            patience.failed(IpAddr::from(number.to_be_bytes()));
        }
        assert!(patience.minutes().len() <= 4096);
    }
}
