//! Taking connections at a door: how many there may be, in all and from one address.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};

/// How long a door rests when no connection could be taken: usually there are no file descriptors.
const REST: Duration = Duration::from_millis(100);

/// Takes the next connection, however long it takes.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "could not take a connection");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Places for connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    max: usize,
    per_address_max: usize,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Places {
    pub(crate) fn new(max: usize, per_address_max: usize) -> Self {
        Self {
            max,
            per_address_max,
            taken: Arc::default(),
        }
    }

    /// Takes a place, if there is one. It is free again when what is returned is dropped.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut taken = self.taken();
        let all: usize = taken.values().sum();
        let here = taken.get(&address).copied().unwrap_or(0);
        if all >= self.max || here >= self.per_address_max {
            return None;
        }
        taken.insert(address, here + 1);
        Some(Place {
            places: self.clone(),
            address,
        })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that is taken.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_in_all_and_for_each_address_and_come_free_again() {
        let places = Places::new(3, 2);
        let [a, b]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let first = places.take(a).expect("free");
        let _second = places.take(a).expect("free");
        assert!(places.take(a).is_none(), "two from one address");
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().expect("an address");
        assert!(
            places.take(mapped).is_none(),
            "the same address, written otherwise"
        );
        let _third = places.take(b).expect("free");
        assert!(places.take(b).is_none(), "three in all");

        drop(first);

        assert!(places.take(b).is_some());
    }
}
