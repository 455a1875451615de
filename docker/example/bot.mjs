#!/usr/bin/env node
// A stand-in for a WhatsApp bot, to try authsync out with: no package, no network, no WhatsApp.
//
// What is real: it keeps an identity in a folder as Baileys' useMultiFileAuthState does, with the same file names, the
// same JSON (buffers as {"type":"Buffer","data":base64}) and the same plain fs.promises.writeFile, which empties a file
// before it fills it. It changes session-*.json with each "message", creds.json now and then, and uses pre-keys up.
// What is not: nobody is at the other end, and the keys encrypt nothing. Delete the folder, and without authsync it is
// somebody else at the next start; a real bot would ask for its QR code to be scanned again.
//
//   node bot.mjs [--dir auth_info] [--seconds N] [--rate MESSAGES_PER_SECOND]     (or AUTH_DIR, BOT_SECONDS, BOT_RATE)
//
// It runs until SIGTERM or SIGINT, or for N seconds, saves once more, and exits with 0.
import { createHash, createHmac, generateKeyPairSync, randomBytes, randomInt } from 'node:crypto'
import { mkdir, readFile, readdir, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'

const { values: options } = parseArgs({
  options: {
    dir: { type: 'string', default: process.env.AUTH_DIR || 'auth_info' },
    seconds: { type: 'string', default: process.env.BOT_SECONDS || 'Infinity' },
    rate: { type: 'string', default: process.env.BOT_RATE || '4' },
  },
})
const folder = options.dir
const seconds = Number(options.seconds)
const rate = Number(options.rate)
if (!(seconds >= 0) || !(rate > 0)) {
  console.error('bot: --seconds and --rate take positive numbers')
  process.exit(64)
}

const PRE_KEYS = 30
const CONTACTS = ['15550100001', '15550100002', '15550100003', '15550100004', '15550100005']

const encode = (_, value) =>
  value?.type === 'Buffer' ? { type: 'Buffer', data: Buffer.from(value.data).toString('base64') } : value
const decode = (_, value) => (value?.type === 'Buffer' ? Buffer.from(value.data, 'base64') : value)

const write = (name, value) => writeFile(join(folder, name), JSON.stringify(value, encode))
// As in Baileys, what cannot be read is taken for what does not exist: a torn creds.json makes a new identity.
const read = name => readFile(join(folder, name), 'utf8').then(text => JSON.parse(text, decode)).catch(() => undefined)

function keyPair() {
  const { d, x } = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' })
  return { private: Buffer.from(d, 'base64url'), public: Buffer.from(x, 'base64url') }
}

const newCredentials = () => ({
  noiseKey: keyPair(),
  pairingEphemeralKeyPair: keyPair(),
  signedIdentityKey: keyPair(),
  signedPreKey: { keyPair: keyPair(), signature: randomBytes(64), keyId: 1 },
  registrationId: randomInt(1, 16380),
  advSecretKey: randomBytes(32).toString('base64'),
  processedHistoryMessages: [],
  nextPreKeyId: 1,
  firstUnuploadedPreKeyId: 1,
  accountSyncCounter: 0,
  accountSettings: { unarchiveChats: false },
  registered: false, // it stays so when a QR code was scanned; what says "paired" is me and account
})

async function addPreKey(creds) {
  await write(`pre-key-${creds.nextPreKeyId}.json`, keyPair())
  creds.nextPreKeyId += 1
  creds.firstUnuploadedPreKeyId = creds.nextPreKeyId
}

async function pair(creds) {
  creds.account = { details: randomBytes(24), accountSignatureKey: randomBytes(32), deviceSignature: randomBytes(64) }
  creds.me = { id: `1555${randomInt(1000000, 9999999)}:1@s.whatsapp.net`, name: 'example' }
  creds.platform = 'android'
  while (creds.nextPreKeyId <= PRE_KEYS) await addPreKey(creds)
  creds.myAppStateKeyId = randomBytes(6).toString('base64url')
  await write(`app-state-sync-key-${creds.myAppStateKeyId}.json`, { keyData: randomBytes(32), timestamp: Date.now() })
  await write('creds.json', creds)
}

const fingerprint = creds => createHash('sha256').update(creds.signedIdentityKey.public).digest('hex').slice(0, 12)
const masked = creds => creds.me.id.split(':')[0].replace(/^(\d{4})\d*(\d{4})$/, '$1***$2')

const stopping = new AbortController()
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => stopping.abort(signal))
if (Number.isFinite(seconds)) setTimeout(() => stopping.abort(`${seconds} s are over`), seconds * 1000)
const pause = ms => sleep(ms, undefined, { signal: stopping.signal }).catch(() => {})

await mkdir(folder, { recursive: true })
let creds = await read('creds.json')
const known = Boolean(creds?.me && creds.account)
if (!known) {
  creds ??= newCredentials()
  await write('creds.json', creds)
  await pair(creds)
}
const what = known ? 'restored' : 'new: a real bot would show a QR code now'
console.log(`bot: identity ${fingerprint(creds)} (${masked(creds)}) ${what}`)

const sessions = new Map()
for (const number of CONTACTS) {
  const name = `session-${number}.0.json`
  sessions.set(name, (await read(name)) ?? { version: 'v1', counter: 0, chainKey: randomBytes(32) })
}
const total = () => [...sessions.values()].reduce((sum, session) => sum + session.counter, 0)
console.log(`bot: ${total()} messages so far, ${(await readdir(folder)).filter(n => n.endsWith('.json')).length} files`)

while (!stopping.signal.aborted) {
  const [name, session] = [...sessions][randomInt(sessions.size)]
  session.chainKey = createHmac('sha256', session.chainKey).update('\x02').digest() // one way: no going back
  session.counter += 1
  await write(name, session)
  if (total() % 10 === 0) {
    const oldest = creds.nextPreKeyId - PRE_KEYS
    await unlink(join(folder, `pre-key-${oldest}.json`)).catch(() => {}) // a new contact used it up
    await addPreKey(creds)
    creds.accountSyncCounter += 1
    await write('creds.json', creds)
  }
  await pause(1000 / rate)
}

creds.lastAccountSyncTimestamp = Math.floor(Date.now() / 1000)
await write('creds.json', creds)
console.log(`bot: stopped (${stopping.signal.reason}), ${total()} messages, credentials saved`)
process.exit(0)
