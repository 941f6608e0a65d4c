// js-libp2p with the settings that pimesh expects: TCP, Noise, Yamux, identify, ping, gossipsub.

import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { gossipsub, StrictSign } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { createLibp2p } from 'libp2p'
import { MESSAGE_BYTES_MAX, messageId } from './integers.mjs'

// How long an inbound stream of pings may live. rust-libp2p keeps one for the whole connection,
// and js-libp2p would end it after ten seconds.
const PING_STREAM_MS = 2 ** 31 - 1

export function createHost ({ privateKey, listen, isMember }) {
  return createLibp2p({
    privateKey,
    addresses: { listen },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    // gossipsub serves whoever is connected; only who is known as a member may dial.
    connectionGater: { denyInboundEncryptedConnection: (peer) => !isMember(peer) },
    services: {
      identify: identify(),
      ping: ping({ timeout: PING_STREAM_MS }),
      pubsub: gossipsub({
        globalSignaturePolicy: StrictSign,
        msgIdFn: ({ from, data }) => messageId(from, data),
        floodPublish: true,
        maxInboundDataLength: MESSAGE_BYTES_MAX
      })
    }
  })
}
