//! Keys are made once, kept for their owner, and never half.

use super::*;

fn phrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned()))
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a folder");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).expect("private");
    home
}

fn peer(identity: &Identity) -> String {
    identity.node.public().to_peer_id().to_string()
}

#[test]
fn a_second_start_finds_the_keys_of_the_first() {
    let home = home();

    let first = Identity::load_or_create(home.path(), None).expect("made");
    let second = Identity::load_or_create(home.path(), None).expect("read");

    assert_eq!(peer(&first), peer(&second));
    assert_eq!(first.messaging.public(), second.messaging.public());
    assert_ne!(&*first.messaging.to_seed(), &[0; 32]);
    for file in ["node.key", "messaging.key"] {
        let mode = fs::metadata(home.path().join(file))
            .expect(file)
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn processes_that_start_at_once_get_one_identity() {
    let home = home();
    let start = || peer(&Identity::load_or_create(home.path(), None).expect("an identity"));

    let peers: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("no panic"))
            .collect()
    });

    assert_eq!(peers.len(), 1);
    let files = fs::read_dir(home.path()).expect("a folder").count();
    assert_eq!(
        files, 3,
        "two keys and their list; no neighbour is left behind"
    );
}

#[test]
fn a_file_that_others_can_read_stops_the_node() {
    let home = home();
    Identity::load_or_create(home.path(), None).expect("made");
    let path = home.path().join("node.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");

    let error = Identity::load_or_create(home.path(), None).expect_err("refused");

    let text = error.to_string();
    assert!(
        text.contains("permissions 640") && text.contains("chmod 600"),
        "{text}"
    );
}

#[test]
fn a_sealed_key_opens_with_its_passphrase_only() {
    let home = home();
    let right = phrase("correct horse");
    let first = Identity::load_or_create(home.path(), Some(&right)).expect("made");

    let wrong = Identity::load_or_create(home.path(), Some(&phrase("battery"))).expect_err("no");
    let none = Identity::load_or_create(home.path(), None).expect_err("no");
    let again = Identity::load_or_create(home.path(), Some(&right)).expect("read");

    assert!(
        matches!(wrong, KeyFileError::WrongPassphrase { .. }),
        "{wrong}"
    );
    assert!(
        matches!(none, KeyFileError::NeedsPassphrase { .. }),
        "{none}"
    );
    assert_eq!(peer(&first), peer(&again));
}

#[test]
fn a_sealed_file_with_a_byte_changed_or_cut_is_an_error() {
    let home = home();
    let right = phrase("correct horse");
    let path = home.path().join("mesh.key");
    load_or_create_mesh_key(home.path(), Some(&right)).expect("made");
    let bytes = fs::read(&path).expect("the file");

    // Each try costs a key derivation, so not every byte is tried.
    for at in (0..bytes.len()).step_by(11) {
        let mut changed = bytes.clone();
        changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
        fs::write(&path, &changed).expect("written");
        assert!(
            load_mesh_key(home.path(), Some(&right)).is_err(),
            "byte {at} changed"
        );
    }
    for at in (1..bytes.len()).step_by(7) {
        fs::write(&path, &bytes[..at]).expect("written");
        assert!(
            load_mesh_key(home.path(), Some(&right)).is_err(),
            "cut at {at}"
        );
    }
}

#[test]
fn the_passphrase_can_be_changed_and_taken_away() {
    let home = home();
    let (old, new) = (phrase("first one"), phrase("second one"));
    let first = Identity::load_or_create(home.path(), None).expect("made");

    assert_eq!(
        change_passphrase(home.path(), None, Some(&old)).expect("sealed"),
        2
    );
    // As after a power cut in between: one file has the new one already.
    let path = home.path().join("node.key");
    let secret = file::load(&path, Kind::Node, Some(&old))
        .expect("opens")
        .expect("there");
    file::replace(&path, Kind::Node, &secret, Some(&new)).expect("replaced");
    assert_eq!(
        change_passphrase(home.path(), Some(&old), Some(&new)).expect("changed"),
        2
    );
    assert_eq!(
        change_passphrase(home.path(), Some(&new), None).expect("opened"),
        2
    );

    let last = Identity::load_or_create(home.path(), None).expect("read");
    assert_eq!(peer(&first), peer(&last));
}

#[test]
fn a_mesh_key_travels_in_a_sealed_file() {
    let (from, to) = (home(), home());
    let seal = phrase("for the journey");
    let made = load_or_create_mesh_key(from.path(), None).expect("made");
    let file = from.path().join("mesh.backup");

    export_mesh_key(from.path(), None, &file, &seal).expect("exported");
    assert!(import_mesh_key(to.path(), None, &file, &phrase("a guess"), None).is_err());
    let other = Some(MeshKey::from_seed(&[5; 32]).mesh());
    let refused = import_mesh_key(to.path(), None, &file, &seal, other).expect_err("another mesh");
    assert!(
        matches!(refused, KeyFileError::OtherMesh { .. }),
        "{refused}"
    );
    let taken = import_mesh_key(to.path(), None, &file, &seal, None).expect("imported");

    assert_eq!(taken.mesh(), made.mesh());
    assert!(
        export_mesh_key(from.path(), None, &file, &seal).is_err(),
        "nothing is overwritten"
    );
    let loaded = load_mesh_key(to.path(), None)
        .expect("read")
        .expect("there");
    assert_eq!(loaded.mesh(), made.mesh());
}

#[test]
fn an_rsa_key_is_made_and_found_again() {
    let home = home();

    assert!(
        load_rsa(home.path(), None)
            .expect("nothing wrong")
            .is_none()
    );
    let made = create_rsa(home.path(), None, 2048).expect("made");
    let found = load_rsa(home.path(), None).expect("read").expect("there");

    assert_eq!(made.public().fingerprint(), found.public().fingerprint());
}

#[test]
fn a_key_file_of_another_kind_is_refused() {
    let home = home();
    Identity::load_or_create(home.path(), None).expect("made");
    fs::rename(home.path().join("node.key"), home.path().join("mesh.key")).expect("renamed");

    let loaded = load_mesh_key(home.path(), None);

    assert!(matches!(
        loaded,
        Err(KeyFileError::OtherKind { wanted: "mesh", .. })
    ));
}

#[test]
fn a_mesh_key_that_was_put_aside_counts_if_it_is_that_of_the_mesh_on_disk() {
    let (old, new) = (MeshKey::from_seed(&[1; 32]), MeshKey::from_seed(&[2; 32]));
    for (mesh, held) in [(&old, &old), (&new, &new)] {
        for sealed in [None, Some(phrase("correct horse"))] {
            let home = home();
            let keys = KeyRing::new(home.path().to_owned(), sealed.clone());
            let keep = KeyFile::Keep(old.clone());
            keys.change_mesh_key(&keep).expect("kept");
            let stage = KeyFile::Stage(new.clone());
            keys.change_mesh_key(&stage).expect("put aside");

            // The power goes here.
            settle_mesh_key(home.path(), sealed.as_ref(), &mesh.mesh()).expect("settled");
            settle_mesh_key(home.path(), sealed.as_ref(), &mesh.mesh()).expect("settled before");

            let read = load_mesh_key(home.path(), sealed.as_ref()).expect("read");
            assert_eq!(read.map(|key| key.mesh()), Some(held.mesh()));
            assert!(!home.path().join("mesh-next.key").exists());
            let mode = fs::metadata(home.path().join("mesh.key")).expect("there");
            assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        }
    }
}

#[test]
fn an_export_is_remembered_for_the_mesh_whose_key_it_was() {
    let home = home();
    let key = load_or_create_mesh_key(home.path(), None).expect("made");
    let file = home.path().join("backup");
    assert!(!is_exported(home.path(), &key.mesh()));

    export_mesh_key(home.path(), None, &file, &phrase("correct horse")).expect("exported");

    assert!(is_exported(home.path(), &key.mesh()));
    let other = MeshKey::from_seed(&[2; 32]).mesh();
    assert!(!is_exported(home.path(), &other));
}
