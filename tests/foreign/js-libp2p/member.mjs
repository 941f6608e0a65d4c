// A member of a pimesh mesh that shares no code with it, made from proto-specs/ and js-libp2p.
//
//   node member.mjs --mesh-key FILE --address MULTIADDR [--listen MULTIADDR]
//
// FILE holds the seed of the mesh's Ed25519 key as 64 hexadecimal digits. Commands come as lines of
// JSON on standard input, and what happens goes out as lines of JSON on standard output:
//
//   {"do":"publish","values":[1,2]}  {"do":"send","text":"…"}  {"do":"ping"}  {"do":"hang_up"}
//   {"do":"quit"}
//
// An error is told as {"event":"error","message":…} and ends the program with exit code 1.

import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { multiaddr } from '@multiformats/multiaddr'
import { Session } from './session.mjs'

const NAME = 'js'
const INDEX = 900

const tell = (event) => process.stdout.write(`${JSON.stringify(event)}\n`)

async function main () {
  const { values: args } = parseArgs({
    options: { 'mesh-key': { type: 'string' }, address: { type: 'string' }, listen: { type: 'string' } }
  })
  if (args['mesh-key'] === undefined || args.address === undefined) throw new Error('--mesh-key and --address are needed')
  const meshSeed = readSeed(args['mesh-key'])
  const listen = args.listen === undefined ? [] : [args.listen]
  const session = await Session.start({ meshSeed, name: NAME, index: INDEX, listen, tell })
  await session.dial(multiaddr(args.address))
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    if (command.do === 'quit') break
    await obey(session, command)
  }
  await session.stop()
}

function readSeed (path) {
  const text = readFileSync(path, 'utf8').trim()
  if (!/^[0-9a-f]{64}$/i.test(text)) throw new Error(`${path} does not hold 64 hexadecimal digits`)
  return Buffer.from(text, 'hex')
}

async function obey (session, command) {
  switch (command.do) {
    case 'publish': return session.publish(command.values)
    case 'send': return session.send(command.text)
    case 'ping': return session.ping()
    case 'hang_up': return session.hangUp()
    default: throw new Error(`no such command: ${command.do}`)
  }
}

try {
  await main()
  process.exit(0)
} catch (error) {
  tell({ event: 'error', message: error.message })
  process.exit(1)
}
