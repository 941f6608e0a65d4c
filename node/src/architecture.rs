//! Holds the picture of ARCHITECTURE.md against the code: which room sees which.
//!
//! A line `room: a b` of the picture says that files of `room` name `crate::a` and `crate::b`, and
//! no other rooms. Each room stands below all that it sees, so there are no circles.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Modules that exist for tests only. They may see everything, and nothing sees them.
const FOR_TESTS: [&str; 4] = ["architecture", "fuzz", "sim", "vectors"];

type Rooms = BTreeMap<String, BTreeSet<String>>;

#[test]
fn the_rooms_see_each_other_as_in_the_picture() {
    let picture = picture();
    let mut below = BTreeSet::new();
    for (room, sees) in &picture {
        let circle: Vec<_> = sees.difference(&below).collect();
        assert!(circle.is_empty(), "`{room}` stands above {circle:?}");
        below.insert(room.clone());
    }

    let picture: Rooms = picture.into_iter().collect();
    assert_eq!(rooms(), picture, "left: the code; right: ARCHITECTURE.md");
}

/// Reads the picture, in its order.
fn picture() -> Vec<(String, BTreeSet<String>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ARCHITECTURE.md");
    let text = fs::read_to_string(path).expect("is there");
    let begin = "```text\nroom: sees\n";
    let (_, rest) = text.split_once(begin).expect("there is a picture");
    let (block, _) = rest.split_once("```").expect("it ends");
    let line = |line: &str| {
        let (room, sees) = line.split_once(':').expect("`room: sees`");
        let sees = sees.split_whitespace().map(str::to_owned).collect();
        (room.to_owned(), sees)
    };
    block.lines().map(line).collect()
}

/// Reads which room names which in its code.
fn rooms() -> Rooms {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut rooms = Rooms::new();
    let entries = fs::read_dir(&source).expect("a folder");
    for entry in entries.map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        let room = path.file_stem().and_then(|stem| stem.to_str());
        let room = room.expect("a name").to_owned();
        let is_code = path.is_dir() || path.extension().is_some_and(|end| end == "rs");
        if is_code && room != "lib" && !FOR_TESTS.contains(&&*room) {
            let seen = rooms.entry(room.clone()).or_default();
            look(&path, seen);
        }
    }
    // Names at the root of the crate stand for the rooms they come from.
    for seen in rooms.values_mut() {
        for (name, room) in [("NodeHandle", "handle"), ("Config", "config")] {
            if seen.remove(name) {
                seen.insert(room.to_owned());
            }
        }
    }
    for (room, seen) in &mut rooms {
        seen.retain(|other| other != room && !FOR_TESTS.contains(&&**other));
    }
    rooms
}

/// Adds what a file names, or all files of a folder. Those with tests do not count.
fn look(path: &Path, seen: &mut BTreeSet<String>) {
    let name = path.file_stem().and_then(|stem| stem.to_str());
    if name.is_some_and(|name| ["tests", "fuzz", "vectors"].contains(&name)) {
        return;
    }
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            look(&entry.expect("an entry").path(), seen);
        }
    } else if path.extension().is_some_and(|end| end == "rs") {
        let text = fs::read_to_string(path).expect("readable");
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let code: String = code.flat_map(|line| [line, "\n"]).collect();
        // Tests stand at the end of a file.
        let (code, _) = code
            .split_once("#[cfg(test)]\nmod tests {")
            .unwrap_or((&code, ""));
        for (at, _) in code.match_indices("crate::") {
            names(&code[at + "crate::".len()..], seen);
        }
    }
}

/// Adds what stands first in each path of `a::b` or `{a::b, c::{d, e}}`.
fn names(path: &str, seen: &mut BTreeSet<String>) {
    let word = |text: &str| {
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
        let end = text.find(|letter| !is_part(letter)).unwrap_or(text.len());
        text[..end].to_owned()
    };
    let Some(list) = path.strip_prefix('{') else {
        seen.insert(word(path));
        return;
    };
    let (mut depth, mut begins) = (0, true);
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => return,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            letter if begins && !letter.is_whitespace() => {
                seen.insert(word(&list[at..]));
                begins = false;
            }
            _ => {}
        }
    }
}
