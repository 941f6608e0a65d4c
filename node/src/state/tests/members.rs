//! Who is let in, and who is not: certificates, removals, tickets.

use super::*;
use crate::proto::mesh::signed::{Label, Signed};

#[test]
fn a_member_with_its_own_certificate_is_let_in() {
    let mut state = state(Settings::default());

    let (answer, opened) = hello(&mut state, peer_of_seed(2), certificate(2).encode());

    assert_eq!(
        (answer, opened),
        (Response::Hello(certificate(1).encode()), true)
    );
}

/// Returns encoded certificates that the member with seed 2 must not be let in with.
fn bad_certificates() -> Vec<Vec<u8>> {
    let expired = mesh_key().issue(Terms {
        expires_ms: 1_799_999_999_999,
        ..certificate(2).terms().clone()
    });
    let foreign = MeshKey::from_seed(&[8; 32]).issue(certificate(2).terms().clone());
    vec![
        certificate(3).encode(),
        expired.encode(),
        foreign.encode(),
        forged(certificate(2)),
        Vec::new(),
    ]
}

/// Signs what a certificate says with a key that is not the mesh key.
fn forged(certificate: Certificate) -> Vec<u8> {
    let key = ed25519_dalek::SigningKey::from_bytes(&[8; 32]);
    let payload = certificate.signed().payload.clone();
    prost::Message::encode_to_vec(&Signed::sign(Label::CERTIFICATE, payload, &key))
}

#[test]
fn nobody_is_let_in_with_a_certificate_that_is_not_good() {
    for shown in bad_certificates() {
        let mut state = state(Settings::default());

        let (answer, opened) = hello(&mut state, peer_of_seed(2), shown);

        assert_eq!(
            (answer, opened),
            (Response::Refused(Refusal::NotAMember), false)
        );
    }
}

#[test]
fn nobody_who_was_dialled_is_let_in_with_a_certificate_that_is_not_good() {
    for shown in bad_certificates() {
        let mut state = state(Settings::default());
        let hello = dialled(&mut state, NOW);

        let result = Ok(Response::Hello(shown).encode());
        let outputs = feed(
            &mut state,
            Input::Net(NetInput::Response { id: hello, result }),
        );

        let is = |wanted: fn(&NetOutput) -> bool| {
            outputs
                .iter()
                .any(|o| matches!(o, Output::Net(output) if wanted(output)))
        };
        assert!(!is(|o| matches!(o, NetOutput::Open { .. })));
        assert!(is(|o| matches!(o, NetOutput::Close { .. })));
    }
}

#[test]
fn a_removed_member_is_told_and_not_let_in() {
    let mut state = state(Settings::default());
    let peer = "pi-2".to_owned();
    carried_out(&mut state, Command::Remove { peer });

    let (answer, opened) = hello(&mut state, peer_of_seed(2), certificate(2).encode());

    assert!(
        matches!(answer, Response::Revoked(_)) && !opened,
        "{answer:?}"
    );
}

#[test]
fn net_is_told_who_is_a_member_and_who_is_none_any_more() {
    let told = |outputs: Vec<Output>| -> Vec<(PeerId, bool)> {
        let told = outputs.iter().filter_map(|output| match output {
            Output::Net(NetOutput::Member { peer, is_member }) => Some((*peer, *is_member)),
            _ => None,
        });
        told.collect()
    };
    let mut state = state(Settings::default());

    state.learn_statements(vec![certificate(3).encode()], vec![], NOW);
    let added = told(outputs(&mut state));
    let peer = "pi-3".to_owned();
    let removed = told(carried_out(&mut state, Command::Remove { peer }));

    assert_eq!(added, [(peer_of_seed(3), true)]);
    assert_eq!(removed, [(peer_of_seed(3), false)]);
}

#[test]
fn removed_members_leave_their_places_to_others() {
    let mut state = state(Settings::default());
    for number in 0..300_u32 {
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        let peer = libp2p_identity::Keypair::ed25519_from_bytes(seed)
            .expect("32 bytes")
            .public()
            .to_peer_id();
        let name = format!("guest-{number}");
        let terms = Terms {
            peer,
            name: name.parse().expect("a name"),
            index: Index(1000),
            ..certificate(3).terms().clone()
        };
        let certificates = vec![mesh_key().issue(terms).encode()];
        state.learn_statements(certificates, vec![], NOW);
        assert!(state.membership.is_known(&peer), "{name}");
        carried_out(&mut state, Command::Remove { peer: name });
    }
}

#[test]
fn a_ticket_lets_in_the_first_peer_that_knows_its_secret_and_nobody_else() {
    let mut state = state(Settings::default());
    let secret = invite(&mut state);
    let unknown = Secret::new([7; 16]);
    let too_late = later(INVITE_LIFETIME);

    let refused = [
        join(&mut state, 5, &unknown, 5, NOW),
        join(&mut state, 5, &secret, 6, NOW),
        join(&mut state, 5, &secret, 5, too_late),
    ];
    let first = join(&mut state, 5, &secret, 5, NOW);
    let second = join(&mut state, 6, &secret, 6, NOW);

    let expected = [
        Refusal::TicketUnknown,
        Refusal::NotAMember,
        Refusal::TicketExpired,
    ];
    assert_eq!(refused, expected.map(Some));
    assert_eq!((first, second), (None, Some(Refusal::TicketUnknown)));
}

/// Makes a ticket; returns its secret.
fn invite(state: &mut State) -> Secret {
    let command = Command::Invite(Wanted {
        name: None,
        index: None,
        further: Ranges::default(),
        vouched: Vouched::ALL,
        lifetime: None,
    });
    let ticket = stored(&feed(state, Input::Control(RequestId(1), command)));
    let outputs = feed(state, Input::Stored(ticket));
    let text = outputs.iter().find_map(|output| match output {
        Output::Reply(_, Ok(Reply::Invited(invite))) => Some(&invite.ticket),
        _ => None,
    });
    let ticket = crate::proto::mesh::ticket::Ticket::from_text(text.expect("a ticket"));
    ticket.expect("legal").secret
}
