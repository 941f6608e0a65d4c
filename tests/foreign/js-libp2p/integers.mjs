// Integers in their native form (proto-specs/iid.md, section 9): frames, message ids, and what a
// receiver takes.

import { createHash } from 'node:crypto'

export const TOPIC = '/pimesh/iid/1'
export const MESSAGE_BYTES_MAX = 65_536

const HEAD_BYTES = 24
const IID_BYTES = 16
const FRAME_IIDS_MAX = 64
const TTL_MS = 10_000
const TTL_MS_MAX = 600_000
const BRIDGED = 1
const HELD = 2
const SKEW_MS = 5000n
const WINDOW = 1024n
const SOURCES_MAX = 4096
const WINDOW_TIME_MS = 610_000n

// Says what becomes of a message that is not accepted.
export class Refusal extends Error {
  constructor (verdict, name) {
    super(name)
    this.verdict = verdict
  }
}

const rejected = (name) => new Refusal('reject', name)
const ignored = (name) => new Refusal('ignore', name)

// Numbers and encodes the frames of one origin.
export class Sender {
  #sequence = BigInt(Date.now()) * 1000n

  // Returns the data of one message for each 64 values.
  messages (index, values, nowMs = Date.now()) {
    const messages = []
    for (let at = 0; at < values.length; at += FRAME_IIDS_MAX) {
      messages.push(this.#frame(index, values.slice(at, at + FRAME_IIDS_MAX), BigInt(nowMs)))
    }
    return messages
  }

  #frame (index, values, nowMs) {
    const frame = Buffer.alloc(HEAD_BYTES + values.length * IID_BYTES)
    frame.writeUInt8(1, 0)
    frame.writeUInt8(values.length, 2)
    frame.writeUInt32LE(TTL_MS, 4)
    frame.writeBigUInt64LE(this.#sequence++, 8)
    frame.writeBigUInt64LE(nowMs, 16)
    values.forEach((value, position) => {
      const at = HEAD_BYTES + position * IID_BYTES
      frame.writeInt32LE(index, at)
      frame.writeInt32LE(value, at + 4)
      frame.writeBigUInt64LE(nowMs, at + 8)
    })
    return frame
  }
}

export function messageId (source, data) {
  const sequence = data.length < 16 ? new Uint8Array(8) : data.subarray(8, 16)
  return createHash('sha256').update(source.toMultihash().bytes).update(sequence).digest().subarray(0, 20)
}

// Returns the frames of a message.
function decodeMessage (data) {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
  if (bytes.length < HEAD_BYTES) throw rejected('form')
  if (bytes[0] !== 1) throw ignored('version')
  if (bytes.length > MESSAGE_BYTES_MAX) throw rejected('form')
  const frames = []
  for (let at = 0; at < bytes.length; at += HEAD_BYTES + frames.at(-1).iids.length * IID_BYTES) {
    const frame = decodeFrame(bytes.subarray(at))
    if (frames.length > 0 && frame.sequence <= frames.at(-1).sequence) throw rejected('form')
    frames.push(frame)
  }
  return frames
}

function decodeFrame (bytes) {
  if (bytes.length < HEAD_BYTES) throw rejected('form')
  const [version, flags, count, zero] = bytes
  const ttl = bytes.readUInt32LE(4)
  const good = version === 1 && (flags & ~(BRIDGED | HELD)) === 0 && zero === 0 &&
    count >= 1 && count <= FRAME_IIDS_MAX && ttl >= 1 && ttl <= TTL_MS_MAX &&
    bytes.length >= HEAD_BYTES + count * IID_BYTES
  if (!good) throw rejected('form')
  const iids = Array.from({ length: count }, (_, position) => {
    const at = HEAD_BYTES + position * IID_BYTES
    return { index: bytes.readInt32LE(at), value: bytes.readInt32LE(at + 4), date: bytes.readBigUInt64LE(at + 8) }
  })
  return { bridged: (flags & BRIDGED) !== 0, ttl: BigInt(ttl), sequence: bytes.readBigUInt64LE(8), sent: bytes.readBigUInt64LE(16), iids }
}

// Judges messages; remembers which sequences of which source came.
export class Receiver {
  #windows = new Map() // text of a peer id -> { highest, seen, last }

  // Returns the IIDs of a message, or throws a Refusal. `maySend` is given index and bridged.
  receive (source, data, maySend, nowMs = Date.now()) {
    const now = BigInt(nowMs)
    const frames = decodeMessage(data)
    for (const { iids, bridged } of frames) {
      if (!iids.every(({ index }) => maySend(index, bridged))) throw rejected('index')
    }
    for (const { sent, ttl } of frames) {
      if (sent > now + SKEW_MS) throw ignored('future')
      if (now > sent + ttl + SKEW_MS) throw ignored('expired')
    }
    const window = this.#window(source.toString(), now)
    for (const { sequence } of frames) {
      if (window.highest !== undefined && sequence + WINDOW <= window.highest) throw ignored('too_old')
      if (window.seen.has(sequence)) throw ignored('duplicate')
    }
    this.#mark(source.toString(), window, frames, now)
    return frames.flatMap(({ iids }) => iids)
  }

  #window (source, now) {
    const over = ({ last }) => now > last + WINDOW_TIME_MS
    const window = this.#windows.get(source)
    if (window !== undefined && !over(window)) return window
    if (window === undefined && this.#windows.size >= SOURCES_MAX) {
      const [free] = [...this.#windows].find(([, other]) => over(other)) ?? []
      if (free === undefined) throw ignored('crowded')
      this.#windows.delete(free)
    }
    return { seen: new Set() }
  }

  #mark (source, window, frames, now) {
    for (const { sequence } of frames) {
      window.seen.add(sequence)
      if (window.highest === undefined || sequence > window.highest) window.highest = sequence
    }
    for (const sequence of window.seen) {
      if (sequence + WINDOW <= window.highest) window.seen.delete(sequence)
    }
    window.last = now
    this.#windows.set(source, window)
  }
}
