// One member and its connections: who may do what on which, and the protocols of
// proto-specs/mesh.md. `/pimesh/p2sn/1` is not spoken: libp2p refuses it by itself.

import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { ed25519 } from '@noble/curves/ed25519.js'
import { Mailbox, STATUSES } from './direct.mjs'
import { createHost } from './host.mjs'
import { Receiver, Refusal, Sender, TOPIC } from './integers.mjs'
import { issue, Membership, peerIdOf } from './membership.mjs'
import { answering, ask, decode, encode } from './wire.mjs'

const MEMBER = '/pimesh/member/1'
const SYNC = '/pimesh/sync/1'
const DIRECT = '/pimesh/dm/1'
const KIB = 1024
const CLOCK_INTERVAL_MS = 60_000
const SUBSCRIPTION_TIME_MS = 10_000
const LIFETIME_MS = 86_400_000

const nowUs = () => BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000))

export class Session {
  // `tell` is given an object for each thing that happens.
  static async start ({ meshSeed, name, index, listen, tell }) {
    const privateKey = await generateKeyPair('Ed25519')
    const session = new Session({ privateKey, meshSeed, name, index, tell })
    await session.#start(privateKey, listen)
    return session
  }

  constructor ({ privateKey, meshSeed, name, index, tell }) {
    const seed = randomBytes(32) // of the messaging key
    this.peerId = peerIdFromPrivateKey(privateKey)
    this.index = index
    this.tell = tell
    this.membership = new Membership(ed25519.getPublicKey(meshSeed))
    const now = Date.now()
    const terms = { peer: this.peerId, messagingKey: ed25519.getPublicKey(seed), name, index, issuedMs: now, expiresMs: now + LIFETIME_MS }
    this.certificate = issue(meshSeed, terms)
    this.membership.learn(this.certificate)
    this.mailbox = new Mailbox({ peerId: this.peerId, name, seed })
    this.sender = new Sender()
    this.receiver = new Receiver()
    this.answered = new WeakSet() // connections that peers dialled and whose hello was good
    this.open = new Map() // text of a peer id -> its connection that is open both ways
  }

  async #start (privateKey, listen) {
    const isMember = (peer) => this.membership.terms(peer) !== undefined
    this.libp2p = await createHost({ privateKey, listen, isMember })
    const members = (answer) => (request, connection) => answer(request, this.#memberOn(connection), connection)
    await this.libp2p.handle(MEMBER, answering(4 * KIB, (request, connection) => this.#admit(request, connection)))
    await this.libp2p.handle(SYNC, answering(KIB * KIB, members((request, member) => this.#synced(request, member))))
    await this.libp2p.handle(DIRECT, answering(3 * KIB * KIB, members((request, member) => this.#received(request, member))))
    this.libp2p.addEventListener('peer:identify', ({ detail }) => this.tell({ event: 'identified', agent: detail.agentVersion }))
    this.libp2p.addEventListener('connection:close', ({ detail }) => this.#closed(detail))
    const { pubsub } = this.libp2p.services
    // Integers that a node publishes earlier than this do not come: it does not know that we listen.
    pubsub.addEventListener('gossipsub:graft', () => this.tell({ event: 'grafted' }))
    pubsub.topicValidators.set(TOPIC, (_, message) => this.#heard(message))
    pubsub.subscribe(TOPIC)
    this.clock = setInterval(() => this.#sayToAll({}), CLOCK_INTERVAL_MS)
  }

  // Dials a member and opens the connection.
  async dial (address) {
    const connection = await this.libp2p.dial(address)
    const hello = await this.#askMember(connection, { hello: this.certificate })
    if (hello.hello === undefined) throw new Error(`the answer to hello is ${JSON.stringify(hello)}`)
    const terms = this.#verify(hello.hello, connection)
    this.#opened(connection)
    const ready = await this.#askMember(connection, { ready: {} })
    if (ready.ok === undefined) throw new Error('no answer to ready')
    await this.#greet(connection, terms)
  }

  async #askMember (connection, request) {
    return decode('MemberAnswer', await ask(connection, MEMBER, encode('MemberRequest', request), 4 * KIB))
  }

  // The listener's half of the handshake.
  async #admit (request, connection) {
    const { hello, ready } = decode('MemberRequest', request)
    if (hello !== undefined) {
      try {
        this.#verify(hello, connection)
      } catch {
        return encode('MemberAnswer', { refused: 0 })
      }
      this.answered.add(connection)
      return encode('MemberAnswer', { hello: this.certificate })
    }
    if (ready === undefined || !this.answered.has(connection)) throw new Error('ready without hello')
    this.#opened(connection)
    // What this side asks must come after its answer.
    setTimeout(() => this.#greet(connection, this.membership.terms(connection.remotePeer)).catch(() => {}), 0)
    return encode('MemberAnswer', { ok: {} })
  }

  #verify (certificate, connection) {
    const terms = this.membership.learn(certificate)
    if (!terms.peerId.equals(connection.remotePeer)) throw new Error('other_peer')
    return terms
  }

  #opened (connection) {
    const peer = connection.remotePeer.toString()
    const older = this.open.get(peer)
    this.open.set(peer, connection)
    if (older !== undefined && older !== connection) older.close().catch(() => {})
  }

  #closed (connection) {
    const peer = connection.remotePeer.toString()
    if (this.open.get(peer) !== connection) return
    this.open.delete(peer)
    this.tell({ event: 'closed', peer })
  }

  // Tells everything as soon as a connection is open.
  async #greet (connection, { name, index }) {
    this.tell({ event: 'open', name, index, peer: connection.remotePeer.toString(), direction: connection.direction })
    const addresses = this.libp2p.getMultiaddrs().map((address) => address.decapsulate('/p2p').toString())
    await this.#say(connection, {
      certificates: this.membership.certificates(),
      revocations: this.membership.revocations(),
      addresses: [{ peer: this.peerId.toMultihash().bytes, addresses }]
    })
  }

  async #say (connection, request) {
    const t0 = nowUs()
    const answer = await ask(connection, SYNC, encode('SyncRequest', request), KIB)
    const t3 = nowUs()
    const { received_us: t1, sent_us: t2 } = decode('SyncAnswer', answer)
    // RFC 5905, section 8.
    const [offset, roundTrip] = [((t1 - t0) + (t2 - t3)) / 2n, (t3 - t0) - (t2 - t1)]
    this.tell({ event: 'clock', offset_us: Number(offset), round_trip_us: Number(roundTrip) })
  }

  #sayToAll (request) {
    for (const connection of this.open.values()) {
      this.#say(connection, request).catch((error) => connection.abort(error))
    }
  }

  // Returns what is certified of the peer of a connection on which it may ask.
  #memberOn (connection) {
    const mayAsk = this.answered.has(connection) || this.open.get(connection.remotePeer.toString()) === connection
    const terms = this.membership.terms(connection.remotePeer)
    if (!mayAsk || terms === undefined) throw new Error('not a member')
    return terms
  }

  #synced (request, member) {
    const received = nowUs()
    const { certificates, revocations, last } = decode('SyncRequest', request)
    // One that is not good spoils no other.
    for (const bytes of revocations) attempt(() => this.membership.revoke(bytes))
    for (const bytes of certificates) attempt(() => this.membership.learn(bytes))
    for (const { index, value, source } of last) this.tell({ event: 'last', index, value, source: peerIdOf(source).toString() })
    this.tell({ event: 'synced', from: member.name, certificates: certificates.length, last: last.length })
    return encode('SyncAnswer', { received_us: received, sent_us: nowUs() })
  }

  // A member for tests: the line that it prints stands in for the disk that `stored` speaks of.
  #received (request, member) {
    return this.mailbox.answer(request, member, (text) => this.tell({ event: 'message', text, from: member.name }))
  }

  #heard ({ from, data }) {
    if (this.membership.terms(from) === undefined) return 'ignore'
    try {
      const iids = this.receiver.receive(from, data, (index, bridged) => this.membership.maySpeak(from, index, bridged))
      for (const [index, group] of Map.groupBy(iids, (iid) => iid.index)) {
        this.tell({ event: 'integers', index, values: group.map(({ value }) => value), from: this.membership.terms(from).name })
      }
      return 'accept'
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      this.tell({ event: 'refused', verdict: error.verdict, reason: error.message })
      return error.verdict
    }
  }

  async publish (values) {
    const { pubsub } = this.libp2p.services
    if (pubsub.getSubscribers(TOPIC).length === 0) {
      await once(pubsub, 'subscription-change', { signal: AbortSignal.timeout(SUBSCRIPTION_TIME_MS) })
    }
    for (const data of this.sender.messages(this.index, values)) {
      const { recipients } = await pubsub.publish(TOPIC, data)
      this.tell({ event: 'published', recipients: recipients.length })
    }
  }

  async send (text) {
    const connection = this.#connection()
    const request = this.mailbox.request(this.membership.terms(connection.remotePeer), text)
    const { statuses } = decode('DirectAnswer', await ask(connection, DIRECT, request, 16 * KIB))
    this.tell({ event: 'sent', status: STATUSES[statuses[0]] ?? 'no_answer' })
  }

  async ping () {
    this.tell({ event: 'ping', ms: await this.libp2p.services.ping.ping(this.#connection().remotePeer) })
  }

  // Ends every connection; a node that knows our address dials us then.
  async hangUp () {
    await Promise.all([...this.open.values()].map((connection) => connection.close()))
  }

  async stop () {
    clearInterval(this.clock)
    await this.libp2p.stop()
  }

  #connection () {
    const [connection] = this.open.values()
    if (connection === undefined) throw new Error('no connection is open')
    return connection
  }
}

function attempt (learn) {
  try {
    learn()
  } catch {
    // Somebody else's mistake.
  }
}
