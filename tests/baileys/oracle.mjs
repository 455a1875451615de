/*
 * oracle.mjs - node --import oracle.mjs PROGRAM: notes each version of each file that PROGRAM writes below ORACLE_DIR.
 *
 * It appends JSON lines to ORACLE_LOG, before and after each write and removal, with the monotonic clock (which Python's
 * time.monotonic_ns() reads too): {"event":"begin"|"end"|"failed","id":7,"t":NANOSECONDS,"path":"creds.json",
 * "sha256":…|null}. sha256 null: the file was removed. A call that is not understood is noted as {"event":"unknown","call":…}.
 *
 * Baileys 7 imports { writeFile } from 'fs/promises', which follows the wrap by syncBuiltinESMExports; Baileys 6 calls
 * require('fs/promises').writeFile each time.
 */
import fs from 'node:fs'
import path from 'node:path'
import { createHash } from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'

const root = path.resolve(process.env.ORACLE_DIR) + path.sep
const log = fs.openSync(process.env.ORACLE_LOG, 'a')
const append = fs.writeSync
const note = line => append(log, JSON.stringify({ ...line, t: Number(process.hrtime.bigint()) }) + '\n')
const below = file => {
  if (typeof file !== 'string' && !(file instanceof URL)) return undefined
  const whole = path.resolve(file instanceof URL ? file.pathname : file)
  return whole.startsWith(root) ? whole.slice(root.length) : undefined
}
const sha = data => createHash('sha256').update(data).digest('hex')

let last = 0
function begin(name, file, digest) {
  const id = ++last
  note({ event: 'begin', id, path: name, sha256: digest })
  return event => note({ event, id, path: name, sha256: digest })
}
const wrap = (module, call, digestOf) => {
  const original = module[call]
  module[call] = function (file, ...rest) {
    const name = below(file)
    if (name === undefined) return original.call(this, file, ...rest)
    const end = begin(name, file, digestOf(rest))
    const result = original.call(this, file, ...rest)
    if (typeof result?.then !== 'function') { end('end'); return result }
    return result.then(value => { end('end'); return value }, error => { end('failed'); throw error })
  }
}
const refuse = (module, call, arg = 0) => {
  const original = module[call]
  module[call] = function (...args) {
    if (below(args[arg]) !== undefined) note({ event: 'unknown', call })
    return original.apply(this, args)
  }
}
const written = rest => sha(rest[0]), removed = () => null
wrap(fs.promises, 'writeFile', written)
wrap(fs.promises, 'unlink', removed)
wrap(fs, 'writeFileSync', written)
wrap(fs, 'unlinkSync', removed)
for (const call of ['appendFile', 'copyFile', 'rename', 'rm', 'truncate']) refuse(fs.promises, call, /copy|rename/.test(call) ? 1 : 0)
for (const call of ['writeFile', 'unlink', 'appendFileSync', 'renameSync', 'rmSync', 'createWriteStream']) {
  refuse(fs, call, call === 'renameSync' ? 1 : 0)
}
syncBuiltinESMExports()
