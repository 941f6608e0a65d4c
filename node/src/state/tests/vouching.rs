//! How a member's range changes: its certificate is issued again, spreads, and counts at once.

use super::*;
use io::FailureKind;

fn range(first: i32, last: i32) -> Vouched {
    Vouched::range(first, last).expect("legal")
}

fn ask(state: &mut State, peer: &str, vouched: Vouched) -> Vec<Output> {
    let peer = peer.to_owned();
    let command = Command::Vouch { peer, vouched };
    feed(state, Input::Control(RequestId(1), command))
}

/// The same, with a disk that writes.
fn vouch(state: &mut State, peer: &str, vouched: Vouched) -> Vec<Output> {
    let peer = peer.to_owned();
    carried_out(state, Command::Vouch { peer, vouched })
}

/// Returns the certificate that is told to others.
fn issued(outputs: &[Output]) -> Certificate {
    let told = told(outputs);
    let [(_, request)] = &told[..] else {
        panic!("one member is told, not {told:?}");
    };
    let [certificate] = &request.certificates[..] else {
        panic!("one certificate, not {request:?}");
    };
    Certificate::decode(certificate, &mesh_key().mesh()).expect("legal")
}

fn bridged(sequence: u64) -> Head {
    Head {
        entry: Entry::Bridged,
        ..head(sequence)
    }
}

#[test]
fn a_member_is_certified_again_and_only_its_range_and_times_change() {
    let mut state = state(Settings::default());
    open(&mut state);

    let before = ask(&mut state, "pi-2", range(300, 399));
    let outputs = feed(&mut state, Input::Stored(stored(&before)));

    let expected = Terms {
        vouched: range(300, 399),
        issued_ms: certificate(2).terms().issued_ms + 1,
        expires_ms: NOW.unix_ms() + 10 * 365 * 24 * 3_600_000,
        ..certificate(2).terms().clone()
    };
    assert_eq!(*issued(&outputs).terms(), expected);
    let [Output::Store(..)] = &before[..] else {
        panic!("nobody hears of it before it is on disk: {before:?}");
    };
    let Some(Output::Reply(RequestId(1), Ok(Reply::Vouched(vouched)))) = outputs.last() else {
        panic!("an answer, not {outputs:?}");
    };
    assert_eq!(vouched.vouched, range(300, 399));
    let heard = hear(&mut state, &[iid(300, 1)], bridged(1), NOW);
    assert_eq!(verdict(&heard), Verdict::Accept, "it counts at once");
}

#[test]
fn a_node_says_what_it_vouches_for_itself_and_remembers_it() {
    let mut state = state(Settings::default());
    open(&mut state);

    let outputs = vouch(&mut state, "pi-1", Vouched::NONE);

    let renewed = outputs.iter().find_map(|output| match output {
        Output::Store(_, records) => Some(&records[..]),
        _ => None,
    });
    let certificate = issued(&outputs);
    assert_eq!(certificate.terms().vouched, Vouched::NONE);
    let certificate = certificate.encode();
    assert_eq!(renewed, Some(&[Record::Renewed { certificate }][..]));
}

#[test]
fn a_range_that_a_member_tells_this_node_about_itself_counts_at_once_and_is_stored() {
    let mut state = state(Settings::default());
    open(&mut state);
    let later = mesh_key().issue(Terms {
        vouched: range(300, 399),
        issued_ms: NOW.unix_ms(),
        ..certificate(1).terms().clone()
    });
    let request = SyncRequest {
        certificates: vec![later.encode()],
        ..SyncRequest::default()
    };
    let iids = vec![iid(300, 1)];
    let bridge = |iids| Command::Bridge { client: None, iids };

    let before = feed(
        &mut state,
        Input::Control(RequestId(1), bridge(iids.clone())),
    );
    let learned = sync(&mut state, &request, NOW);
    let after = feed(&mut state, Input::Control(RequestId(2), bridge(iids)));

    assert!(matches!(before[..], [Output::Reply(_, Err(_))]));
    assert!(matches!(
        after.last(),
        Some(Output::Reply(_, Ok(Reply::Bridged { published: 1 })))
    ));
    let certificate = later.encode();
    assert!(
        learned.iter().any(|output| matches!(
            output,
            Output::Store(_, records) if *records == [Record::Renewed { certificate: certificate.clone() }]
        )),
        "{learned:?}"
    );
}

#[test]
fn a_certificate_is_later_than_the_last_one_even_if_the_clock_is_behind() {
    let ahead = mesh_key().issue(Terms {
        issued_ms: NOW.unix_ms() + 3_600_000,
        ..certificate(2).terms().clone()
    });
    let mut state = state_knowing(&ahead, [0; 32], Settings::default());
    open(&mut state);

    let outputs = vouch(&mut state, "pi-2", range(300, 399));

    assert_eq!(
        issued(&outputs).terms().issued_ms,
        NOW.unix_ms() + 3_600_001
    );
}

#[test]
fn an_index_that_two_members_have_stays_with_its_owner() {
    let twin = mesh_key().issue(Terms {
        index: Index(1),
        issued_ms: certificate(1).terms().issued_ms + 1_000,
        ..certificate(2).terms().clone()
    });
    let mut state = state_knowing(&twin, [0; 32], Settings::default());
    open(&mut state);

    let outputs = vouch(&mut state, "pi-1", Vouched::ALL);

    let issued_ms = issued(&outputs).terms().issued_ms;
    assert_eq!(issued_ms, certificate(1).terms().issued_ms + 1);
    let owner = [1, 2].map(|seed| {
        let peer = peer_of_seed(seed);
        state.membership.may_speak(&peer, Index(1), false)
    });
    assert_eq!(owner, [true, false]);
}

#[test]
fn a_ticket_says_what_the_new_member_vouches_for() {
    let mut state = state(Settings::default());
    let command = Command::Invite(Wanted {
        name: None,
        index: None,
        further: Ranges::default(),
        vouched: range(300, 399),
        lifetime: None,
    });
    let invited = stored(&feed(&mut state, Input::Control(RequestId(1), command)));
    let outputs = feed(&mut state, Input::Stored(invited));
    let text = outputs.iter().find_map(|output| match output {
        Output::Reply(_, Ok(Reply::Invited(invite))) => Some(&invite.ticket),
        _ => None,
    });
    let ticket = crate::proto::mesh::ticket::Ticket::from_text(text.expect("a ticket"));
    let secret = ticket.expect("legal").secret;

    let refused = join(&mut state, 3, &secret, 3, NOW);
    feed(&mut state, Input::Stored(Ticket(invited.0 + 1)));

    assert_eq!(refused, None);
    let peers = state.report_peers(NOW);
    let vouched = peers.iter().find(|peer| peer.peer_id == peer_of_seed(3));
    assert_eq!(vouched.map(|peer| peer.vouched), Some(range(300, 399)));
}

#[test]
fn nobody_vouches_without_the_mesh_key_or_for_a_stranger() {
    let setup = setup(1);
    let loaded = Loaded {
        certificate: Some(certificate(1).encode()),
        members: vec![certificate(2).encode()],
        ..Loaded::default()
    };
    let mut keyless = State::new(setup, loaded, NOW).expect("a state");
    outputs(&mut keyless);

    let without_key = vouch(&mut keyless, "pi-2", Vouched::ALL);
    let stranger = vouch(&mut state(Settings::default()), "pi-9", Vouched::ALL);

    let kind = |outputs: &[Output]| match outputs {
        [Output::Reply(RequestId(1), Err(failure))] => failure.kind,
        other => panic!("a failure and nothing else, not {other:?}"),
    };
    assert_eq!(kind(&without_key), FailureKind::Conflict);
    assert_eq!(kind(&stranger), FailureKind::NotFound);
}
