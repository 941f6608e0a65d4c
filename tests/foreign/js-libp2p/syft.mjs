// The Syft message inside a direct message (proto-specs/syft.md, sections 1 to 4): an envelope that
// only the recipient opens, in a signed JSON object.

import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { ed25519 } from '@noble/curves/ed25519.js'
import nacl from 'tweetnacl'
import { verifyBytes } from './wire.mjs'

const base64 = (bytes) => Buffer.from(bytes).toString('base64')

// Buffer's own decoder skips whatever it does not know.
function unbase64 (text, bytes) {
  const decoded = Buffer.from(text, 'base64')
  if (base64(decoded) !== text || (bytes !== undefined && decoded.length !== bytes)) throw new Error('no such base64')
  return decoded
}

// Hides a text from everybody but the owner of a messaging key.
export function seal (text, messagingKey) {
  const [key, keyNonce, dataNonce] = [randomBytes(32), randomBytes(24), randomBytes(12)]
  const cipher = createCipheriv('aes-256-gcm', key, dataNonce)
  const hidden = Buffer.concat([cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()])
  const ephemeral = nacl.box.keyPair()
  const recipient = toX25519(messagingKey)
  return JSON.stringify({
    ephemeral_public_key: base64(ephemeral.publicKey),
    key_nonce: base64(keyNonce),
    encrypted_key: base64(nacl.box(key, keyNonce, recipient, ephemeral.secretKey)),
    data_nonce: base64(dataNonce),
    encrypted_content: base64(hidden)
  })
}

export function open (envelope, seed) {
  const sealed = JSON.parse(envelope)
  const secret = ed25519.utils.toMontgomerySecret(seed)
  const ephemeral = unbase64(sealed.ephemeral_public_key, 32)
  // A key of low order makes a secret that everybody knows.
  if (nacl.scalarMult(secret, ephemeral).every((byte) => byte === 0)) throw new Error('ephemeral key of low order')
  const key = nacl.box.open(unbase64(sealed.encrypted_key, 48), unbase64(sealed.key_nonce, 24), ephemeral, secret)
  if (key === null) throw new Error('the envelope is for another key')
  const hidden = unbase64(sealed.encrypted_content)
  if (hidden.length < 16) throw new Error('no envelope')
  const decipher = createDecipheriv('aes-256-gcm', key, unbase64(sealed.data_nonce, 12), { authTagLength: 16 })
  decipher.setAuthTag(hidden.subarray(-16))
  const bytes = Buffer.concat([decipher.update(hidden.subarray(0, -16)), decipher.final()])
  return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
}

// The public half; the secret half is noble's toMontgomerySecret.
function toX25519 (messagingKey) {
  const point = ed25519.Point.fromBytes(messagingKey)
  if (point.isSmallOrder() || !point.isTorsionFree()) throw new Error('unusable messaging key')
  return ed25519.utils.toMontgomery(messagingKey)
}

const signedText = ({ from, to, content }, nanos) => Buffer.from(`${from}|${to}|${nanos}|${content}`)

// Makes the signed JSON. Its time is on the grid of 4 ms on which all clients compute the same
// nanoseconds.
export function signMessage (from, to, content, unixMs, seed) {
  const ms = unixMs - unixMs % 4
  const message = { from, to, timestamp: new Date(ms).toISOString(), content }
  message.signature = base64(ed25519.sign(signedText(message, BigInt(ms) * 1_000_000n), seed))
  return JSON.stringify(message)
}

// Says whether a key signed a message; throws if it is no signed message.
export function verifyMessage (message, publicKey) {
  const signature = unbase64(message.signature, 64)
  return candidates(message.timestamp).some((nanos) => verifyBytes(signature, signedText(message, nanos), publicKey))
}

// Returns the nanoseconds that may have been signed: the exact ones, and those that Python makes of
// them with its two roundings.
function candidates (timestamp) {
  const parts = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/.exec(timestamp)
  if (parts === null) return []
  const [, whole, fraction = '', zone] = parts
  const seconds = Date.parse(whole + zone) / 1000
  const nanos = Number(fraction.slice(0, 9).padEnd(9, '0'))
  const micros = seconds * 1e6 + Math.floor(nanos / 1000)
  return [BigInt(seconds) * 1_000_000_000n + BigInt(nanos), BigInt(Math.trunc(micros / 1e6 * 1e9))]
}
