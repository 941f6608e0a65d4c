//! What gateways keep in small durable spaces of their own: each has one, and none sees another's.
//!
//! A change is on the disk first, then in memory, then answered. A record may have an end: it then
//! goes by itself, and where room is needed, those that end first give way to newer ones. One without
//! an end never gives way: what has no room beside those is refused.

use std::{collections::BTreeMap, ops::Bound};

use super::{
    State,
    changes::Change,
    io::{
        Failure, Gateway, GatewayRecord, Keep, Now, Record, RecordChange, RecordKey, RecordValue,
        Reply, RequestId,
    },
};

/// Most records of one gateway: some for each of a few thousand users, and what is revoked of them.
const COUNT_MAX: usize = 16_384;

/// Most bytes of one gateway's records, keys and values: they are in memory, too.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most changes in one request.
const CHANGES_MAX: usize = 64;

/// The records of all gateways.
#[derive(Debug, Default)]
pub(super) struct Records {
    spaces: BTreeMap<Gateway, Space>,
}

/// The records of one gateway.
#[derive(Clone, Debug, Default)]
struct Space {
    records: BTreeMap<RecordKey, (RecordValue, Option<u64>)>,
    bytes: usize,
}

impl Records {
    pub(super) fn load(loaded: Vec<(Gateway, GatewayRecord)>) -> Self {
        let mut records = Self::default();
        for (gateway, record) in loaded {
            records.space(gateway).apply(&RecordChange::Put(record));
        }
        records
    }

    fn space(&mut self, gateway: Gateway) -> &mut Space {
        self.spaces.entry(gateway).or_default()
    }

    /// Changes that are on the disk happened.
    pub(super) fn changed(&mut self, gateway: Gateway, changes: &[RecordChange]) {
        let space = self.space(gateway);
        changes.iter().for_each(|change| space.apply(change));
    }

    /// Takes out what has ended; returns what is to be taken off the disk.
    fn take_ended(&mut self, believed: Now) -> Vec<Record> {
        let is_over = |ends_ms: &Option<u64>| ends_ms.is_some_and(|at| at <= believed.unix_ms());
        let mut gone = Vec::new();
        for (gateway, space) in &mut self.spaces {
            let ended = space.records.iter().filter(|(_, (_, ends))| is_over(ends));
            let ended = ended.map(|(key, _)| RecordChange::Delete(key.clone()));
            for change in ended.collect::<Vec<_>>() {
                space.apply(&change);
                gone.push(Record::OfGateway(*gateway, change));
            }
        }
        gone
    }
}

impl Space {
    fn get(&self, key: &RecordKey) -> Option<GatewayRecord> {
        let kept = self.records.get_key_value(key)?;
        Some(record(kept))
    }

    fn list(&self, prefix: &RecordKey) -> Vec<GatewayRecord> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let begins = |(key, _): &(&RecordKey, _)| key.as_bytes().starts_with(prefix.as_bytes());
        let found = self.records.range::<RecordKey, _>(from).take_while(begins);
        found.map(record).collect()
    }

    fn apply(&mut self, change: &RecordChange) {
        let (key, next) = match change {
            RecordChange::Put(record) => {
                let kept = (record.value.clone(), record.ends_ms);
                (&record.key, Some(kept))
            }
            RecordChange::Delete(key) => (key, None),
        };
        if let Some((value, _)) = self.records.remove(key) {
            self.bytes -= weight(key, &value);
        }
        if let Some(kept) = next {
            self.bytes += weight(key, &kept.0);
            self.records.insert(key.clone(), kept);
        }
    }

    /// Adds to these changes what has to give way for them; `None` if nothing that may does make room.
    fn with_room(&self, changes: Vec<RecordChange>) -> Option<Vec<RecordChange>> {
        let mut touched: BTreeMap<&RecordKey, usize> = BTreeMap::new();
        let (mut count, mut bytes) = (self.records.len(), self.bytes);
        for change in &changes {
            let (key, next) = match change {
                RecordChange::Put(record) => (&record.key, Some(&record.value)),
                RecordChange::Delete(key) => (key, None),
            };
            let before = touched.get(key).copied();
            let before = before.unwrap_or_else(|| self.weight_of(key));
            let after = next.map_or(0, |value| weight(key, value));
            count = count + usize::from(after > 0) - usize::from(before > 0);
            bytes = bytes + after - before;
            touched.insert(key, after);
        }
        let fits = |count, bytes| count <= COUNT_MAX && bytes <= BYTES_MAX;
        if fits(count, bytes) {
            return Some(changes);
        }
        let dated = self.records.iter().filter_map(|(key, (value, ends_ms))| {
            let may_go = !touched.contains_key(key);
            ends_ms.filter(|_| may_go).map(|at| (at, key, value))
        });
        let mut dated: Vec<_> = dated.collect();
        dated.sort_unstable_by_key(|(at, key, _)| (*at, *key));
        let mut gone = Vec::new();
        for (_, key, value) in dated {
            if fits(count, bytes) {
                break;
            }
            count -= 1;
            bytes -= weight(key, value);
            gone.push(RecordChange::Delete(key.clone()));
        }
        fits(count, bytes).then(|| [gone, changes].concat())
    }

    fn weight_of(&self, key: &RecordKey) -> usize {
        self.records
            .get(key)
            .map_or(0, |(value, _)| weight(key, value))
    }
}

fn record((key, (value, ends_ms)): (&RecordKey, &(RecordValue, Option<u64>))) -> GatewayRecord {
    GatewayRecord {
        key: key.clone(),
        value: value.clone(),
        ends_ms: *ends_ms,
    }
}

/// What a record takes, in bytes: also one that says nothing takes something.
fn weight(key: &RecordKey, value: &RecordValue) -> usize {
    1 + key.as_bytes().len() + value.as_bytes().len()
}

impl State {
    /// Does what a gateway asks about its records.
    pub(super) fn asked_about_records(
        &mut self,
        request: RequestId,
        gateway: Gateway,
        asked: Keep,
    ) {
        let space = self.records.space(gateway);
        let found = match asked {
            Keep::Get(key) => space.get(&key).into_iter().collect(),
            Keep::List(prefix) => space.list(&prefix),
            Keep::Change(changes) => return self.change_records(request, gateway, changes),
        };
        self.effects.reply(request, Reply::Kept(found));
    }

    fn change_records(&mut self, request: RequestId, gateway: Gateway, changes: Vec<RecordChange>) {
        if changes.len() > CHANGES_MAX {
            let text = format!("a gateway changes at most {CHANGES_MAX} records at once");
            return self.effects.fail(request, Failure::bad_request(text));
        }
        let Some(changes) = self.records.space(gateway).with_room(changes) else {
            let text = format!(
                "the gateway {} keeps too much: at most {COUNT_MAX} records and {} MiB",
                gateway.name(),
                BYTES_MAX / (1024 * 1024)
            );
            return self.effects.fail(request, Failure::unavailable(text));
        };
        let of_gateway = |change: &RecordChange| Record::OfGateway(gateway, change.clone());
        let records = changes.iter().map(of_gateway).collect();
        let asked = Some((request, Reply::Kept(Vec::new())));
        self.change(asked, records, Change::Records(gateway, changes));
    }

    /// Takes out the records of gateways that have ended.
    pub(super) fn prune_records(&mut self, believed: Now) {
        let gone = self.records.take_ended(believed);
        if !gone.is_empty() {
            self.effects.store(gone, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> RecordKey {
        RecordKey::new(name).expect("short")
    }

    fn put(name: &str, bytes: usize, ends_ms: Option<u64>) -> RecordChange {
        RecordChange::Put(GatewayRecord {
            key: key(name),
            value: RecordValue::new(vec![7; bytes]).expect("short"),
            ends_ms,
        })
    }

    fn names(changes: &[RecordChange]) -> Vec<String> {
        let name = |key: &RecordKey| String::from_utf8_lossy(key.as_bytes()).into_owned();
        changes
            .iter()
            .map(|change| match change {
                RecordChange::Put(record) => format!("+{}", name(&record.key)),
                RecordChange::Delete(key) => format!("-{}", name(key)),
            })
            .collect()
    }

    /// A space with records of the longest value: those of even numbers have an end, the last first.
    fn full() -> Space {
        let mut space = Space::default();
        let count = BYTES_MAX / (VALUE + 5);
        for number in 0..count {
            let ends = (number % 2 == 0).then_some((count - number) as u64);
            space.apply(&put(&format!("{number:04}"), VALUE, ends));
        }
        assert!(space.bytes <= BYTES_MAX && space.bytes + VALUE + 5 > BYTES_MAX);
        space
    }

    const VALUE: usize = crate::state::io::VALUE_BYTES_MAX;

    #[test]
    fn what_ends_first_gives_way_and_what_has_no_end_never_does() {
        let space = full();
        let last = BYTES_MAX / (VALUE + 5) - 1;
        let even = last - last % 2;

        let changes = vec![put("new", VALUE, None), put("newer", VALUE, Some(1))];
        let changes = space.with_room(changes).expect("others give way");

        let first = [even, even - 2].map(|number| format!("-{number:04}"));
        let expected = [&first[..], &["+new".to_owned(), "+newer".to_owned()]].concat();
        assert_eq!(names(&changes), expected);

        let mut undated = space;
        for number in 0..=last {
            undated.apply(&put(&format!("{number:04}"), VALUE, None));
        }
        assert_eq!(undated.with_room(vec![put("new", VALUE, None)]), None);
        let same = vec![put("0001", VALUE, None)];
        assert_eq!(undated.with_room(same.clone()), Some(same), "no more room");
        let less = vec![RecordChange::Delete(key("0001")), put("new1", VALUE, None)];
        assert_eq!(undated.with_room(less.clone()), Some(less));
    }

    #[test]
    fn records_are_counted() {
        let mut space = Space::default();
        for number in 0..COUNT_MAX {
            space.apply(&put(&format!("{number}"), 0, Some(number as u64)));
        }
        let changes = space.with_room(vec![put("new", 0, Some(0))]).expect("room");
        assert_eq!(names(&changes), ["-0", "+new"]);
        changes.iter().for_each(|change| space.apply(change));
        assert_eq!(space.records.len(), COUNT_MAX);
        let weights = space
            .records
            .iter()
            .map(|(key, (value, _))| weight(key, value));
        assert_eq!(space.bytes, weights.sum::<usize>());
    }

    #[test]
    fn a_list_has_the_keys_that_begin_so() {
        let mut space = Space::default();
        for name in ["a", "b", "b1", "b2", "c"] {
            space.apply(&put(name, 1, None));
        }
        let listed = |prefix| {
            let found = space.list(&key(prefix)).into_iter();
            names(&found.map(RecordChange::Put).collect::<Vec<_>>())
        };
        assert_eq!(listed("b"), ["+b", "+b1", "+b2"]);
        assert_eq!(listed("").len(), 5);
        assert!(listed("d").is_empty());
        assert_eq!(
            space.get(&key("b1")).map(|found| found.key),
            Some(key("b1"))
        );
    }

    #[test]
    fn keys_and_values_have_a_limit_and_values_are_not_printed() {
        assert!(RecordKey::new([7; 64]).is_ok() && RecordValue::new([7; 4096]).is_ok());
        let long = RecordKey::new([7; 65]).expect_err("too long");
        assert!(long.to_string().contains("at most 64 bytes, got 65"));
        assert!(RecordValue::new([7; 4097]).is_err());
        let value = RecordValue::new(*b"hunter2").expect("short");
        assert_eq!(format!("{value:?}"), "7 bytes");
    }
}
