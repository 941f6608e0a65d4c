// How pimesh puts things on the wire (proto-specs/mesh.md): protobuf, signed payloads, and one
// message a stream, its length before it in four bytes, big endian.

import { readFileSync } from 'node:fs'
import { byteStream } from '@libp2p/utils'
import { ed25519 } from '@noble/curves/ed25519.js'
import protobuf from 'protobufjs'

const schema = readFileSync(new URL('pimesh.proto', import.meta.url), 'utf8')
const { root } = protobuf.parse(schema, { keepCase: true })

const REQUEST_TIME_MS = 30_000

export function encode (type, message) {
  const kind = root.lookupType(`pimesh.${type}`)
  return kind.encode(kind.fromObject(message)).finish()
}

// Integers of 64 bits become BigInt: an epoch is random and has no room in a JavaScript number.
export function decode (type, bytes) {
  const kind = root.lookupType(`pimesh.${type}`)
  return kind.toObject(kind.decode(bytes), { defaults: true, longs: BigInt })
}

const labelled = (label, payload) => Buffer.concat([Buffer.from(`${label}\0`), payload])

export function sign (label, payload, seed) {
  return { payload, signature: ed25519.sign(labelled(label, payload), seed) }
}

export function verify (label, { payload, signature }, publicKey) {
  return verifyBytes(signature, labelled(label, payload), publicKey)
}

// Strictly: canonical encodings only, no keys of small order.
export function verifyBytes (signature, bytes, publicKey) {
  try {
    return ed25519.verify(signature, bytes, publicKey, { zip215: false })
  } catch {
    return false // of the wrong length
  }
}

// Sends one request on a fresh stream of this connection and returns the answer's bytes.
export async function ask (connection, protocol, request, answerMax) {
  const signal = AbortSignal.timeout(REQUEST_TIME_MS)
  const stream = await connection.newStream(protocol, { signal })
  const io = byteStream(stream)
  try {
    await write(stream, io, request, signal)
    return await read(io, answerMax, signal)
  } catch (error) {
    stream.abort(error)
    throw error
  }
}

// Makes a stream handler of a function from request and connection to answer.
export function answering (requestMax, answer) {
  return async (stream, connection) => {
    const signal = AbortSignal.timeout(REQUEST_TIME_MS)
    const io = byteStream(stream)
    try {
      const request = await read(io, requestMax, signal)
      await write(stream, io, await answer(request, connection), signal)
    } catch (error) {
      stream.abort(error)
    }
  }
}

async function read (io, max, signal) {
  const head = (await io.read({ bytes: 4, signal })).subarray()
  const length = new DataView(head.buffer, head.byteOffset).getUint32(0)
  if (length > max) throw new Error(`a message has at most ${max} bytes here, got ${length}`)
  return length === 0 ? new Uint8Array() : (await io.read({ bytes: length, signal })).subarray()
}

async function write (stream, io, bytes, signal) {
  const head = Buffer.alloc(4)
  head.writeUInt32BE(bytes.length)
  await io.write(Buffer.concat([head, bytes]), { signal })
  await stream.close({ signal })
}
