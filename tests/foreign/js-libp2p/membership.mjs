// Who is a member (proto-specs/mesh.md, "Membership"): certificates and revocations of one mesh.

import { peerIdFromMultihash } from '@libp2p/peer-id'
import { ed25519 } from '@noble/curves/ed25519.js'
import * as Digest from 'multiformats/hashes/digest'
import { decode, encode, sign, verify } from './wire.mjs'

const CERTIFICATE_LABEL = 'pimesh/certificate/1'
const REVOCATION_LABEL = 'pimesh/revocation/1'
const CERTIFICATE_BYTES_MAX = 512
const REVOCATION_BYTES_MAX = 256

export const peerIdOf = (bytes) => peerIdFromMultihash(Digest.decode(bytes))

// Mints a certificate; returns it encoded.
export function issue (meshSeed, { peer, messagingKey, name, index, issuedMs, expiresMs }) {
  const payload = encode('Certificate', {
    mesh: ed25519.getPublicKey(meshSeed),
    peer: peer.toMultihash().bytes,
    messaging_key: messagingKey,
    name,
    index,
    issued_ms: issuedMs,
    expires_ms: expiresMs
  })
  return encode('Signed', sign(CERTIFICATE_LABEL, payload, meshSeed))
}

export class Membership {
  #mesh
  #members = new Map() // text of a peer id -> { terms, bytes }
  #revoked = new Map() // text of a peer id -> { untilMs, bytes }

  constructor (mesh) {
    this.#mesh = mesh
  }

  // Keeps a certificate if it is good and says something new; returns what it says.
  learn (bytes, nowMs = Date.now()) {
    const terms = decode('Certificate', this.#open(bytes, CERTIFICATE_BYTES_MAX, CERTIFICATE_LABEL, 'Certificate'))
    terms.peerId = peerIdOf(terms.peer)
    const peer = terms.peerId.toString()
    if (terms.expires_ms <= nowMs) throw new Error('expired')
    if (this.#ends(peer, terms)) throw new Error('revoked')
    const known = this.#members.get(peer)
    if (known === undefined || known.terms.issued_ms < terms.issued_ms) this.#members.set(peer, { terms, bytes })
    return terms
  }

  // Keeps a revocation if it is good.
  revoke (bytes) {
    const said = decode('Revocation', this.#open(bytes, REVOCATION_BYTES_MAX, REVOCATION_LABEL, 'Revocation'))
    const peer = peerIdOf(said.peer).toString()
    const known = this.#revoked.get(peer)
    if (known === undefined || known.untilMs < said.until_ms) this.#revoked.set(peer, { untilMs: said.until_ms, bytes })
  }

  // Returns what the certificate of a member says, or undefined for anybody else.
  terms (peerId) {
    const peer = peerId.toString()
    const known = this.#members.get(peer)?.terms
    return known === undefined || this.#ends(peer, known) ? undefined : known
  }

  certificates () {
    return [...this.#members.values()].filter(({ terms }) => this.terms(terms.peerId)).map(({ bytes }) => bytes)
  }

  revocations () {
    return [...this.#revoked.values()].map(({ bytes }) => bytes)
  }

  // Says whether a peer may send this index: natively its own, as a gateway those it vouches for.
  maySpeak (peerId, index, bridged) {
    const terms = this.terms(peerId)
    if (terms === undefined) return false
    if (bridged) return terms.vouched_first <= index && index <= terms.vouched_last
    if (terms.index !== index) return false
    const earlier = ({ terms: other }) => other.index === index && other.issued_ms < terms.issued_ms && this.terms(other.peerId)
    return ![...this.#members.values()].some(earlier)
  }

  #ends (peer, terms) {
    return terms.issued_ms <= (this.#revoked.get(peer)?.untilMs ?? -1n)
  }

  // Returns the payload of something that the mesh key signed.
  #open (bytes, max, label, type) {
    if (bytes.length > max) throw new Error('malformed')
    const signed = decode('Signed', bytes)
    if (!Buffer.from(this.#mesh).equals(decode(type, signed.payload).mesh)) throw new Error('foreign_mesh')
    if (!verify(label, signed, this.#mesh)) throw new Error('wrong_signature')
    return signed.payload
  }
}
