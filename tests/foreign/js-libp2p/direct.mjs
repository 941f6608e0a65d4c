// Direct messages of one member (proto-specs/mesh.md, `/pimesh/dm/1`): numbering and signing those
// that go, judging those that come.

import { randomBytes } from 'node:crypto'
import { peerIdOf } from './membership.mjs'
import { open, seal, signMessage, verifyMessage } from './syft.mjs'
import { decode, encode, sign, verify } from './wire.mjs'

const LABEL = 'pimesh/dm/1'
const LIFETIME_MS = 3_600_000
const TEXT_BYTES_MAX = 1_048_576
const MESSAGES_MAX = 128

export const STATUSES = [
  'try_again', 'stored', 'duplicate', 'malformed', 'wrong_signature', 'wrong_sender', 'wrong_recipient',
  'cannot_open', 'too_large'
]
const code = (name) => STATUSES.indexOf(name)

export class Mailbox {
  #own // { peerId, name, seed }
  #epoch = randomBytes(8).readBigUInt64LE()
  #sequence = 0n
  #marks = new Map() // sender and epoch -> last sequence

  constructor (own) {
    this.#own = own
  }

  // Returns the encoded request with one message for a member.
  request (recipient, text) {
    const now = Date.now()
    const content = seal(text, recipient.messaging_key)
    const frame = encode('DirectFrame', {
      id: randomBytes(16),
      sender: this.#own.peerId.toMultihash().bytes,
      recipient: recipient.peer,
      epoch: this.#epoch,
      sequence: ++this.#sequence,
      created_ms: now,
      expires_ms: now + LIFETIME_MS,
      syft: Buffer.from(signMessage(this.#own.name, recipient.name, content, now, this.#own.seed))
    })
    return encode('DirectRequest', { messages: [sign(LABEL, frame, this.#own.seed)] })
  }

  // Answers a request of a member; `deliver` is given each text that is stored.
  answer (request, sender, deliver) {
    const { messages } = decode('DirectRequest', request)
    if (messages.length > MESSAGES_MAX) throw new Error('too many messages')
    return encode('DirectAnswer', { statuses: messages.map((signed) => code(this.#judge(signed, sender, deliver))) })
  }

  #judge (signed, sender, deliver) {
    let frame, message, text
    try {
      frame = decode('DirectFrame', signed.payload)
      if (frame.id.length !== 16) return 'malformed'
      if (!verify(LABEL, signed, sender.messaging_key)) return 'wrong_signature'
      if (!peerIdOf(frame.sender).equals(sender.peerId)) return 'wrong_sender'
      if (!peerIdOf(frame.recipient).equals(this.#own.peerId)) return 'wrong_recipient'
      message = JSON.parse(Buffer.from(frame.syft).toString())
    } catch {
      return 'malformed'
    }
    const numbering = `${sender.peerId} ${frame.epoch}`
    if (frame.sequence <= (this.#marks.get(numbering) ?? -1n)) return 'duplicate'
    if (message.from !== sender.name) return 'wrong_sender'
    if (message.to !== this.#own.name) return 'wrong_recipient'
    try {
      if (!verifyMessage(message, sender.messaging_key)) return 'wrong_signature'
    } catch {
      return 'wrong_signature'
    }
    try {
      text = open(message.content, this.#own.seed)
    } catch {
      return 'cannot_open'
    }
    if (Buffer.byteLength(text) > TEXT_BYTES_MAX) return 'too_large'
    this.#marks.set(numbering, frame.sequence)
    deliver(text)
    return 'stored'
  }
}
