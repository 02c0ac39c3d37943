// A bot made with tmi.js, as it is published. It prints a line of JSON for each thing that it hears of, and
// says each line that comes on standard input.
//
//	node tmi.js HOST PORT CHANNEL NAME TOKEN
import { createInterface } from 'node:readline'
import tmi from 'tmi.js'

const [host, port, channel, name, token] = process.argv.slice(2)
const tell = (kind, rest = {}) => console.log(JSON.stringify({ kind, ...rest }))

const bot = new tmi.Client({
  connection: { server: host, port: Number(port), secure: false, reconnect: true, reconnectInterval: 300, maxReconnectInterval: 1000 },
  options: { skipUpdatingEmotesets: true },
  identity: { username: name, password: `oauth:${token}` },
  channels: [channel],
})
bot.on('join', (_, who, self) => self && tell('joined', { user: who }))
bot.on('roomstate', (_, state) => tell('roomstate', { slow: state.slow }))
bot.on('message', (_, user, text, self) => tell('message', { user: user.username, text, self, id: user.id }))
bot.on('timeout', (_, user, __, seconds) => tell('timeout', { user, seconds }))
bot.on('ban', (_, user) => tell('ban', { user }))
bot.on('messagedeleted', (_, user, text) => tell('deleted', { user, text }))
bot.on('notice', (_, id) => tell('notice', { id }))
bot.on('connected', () => tell('connected'))
createInterface({ input: process.stdin })
  .on('line', (text) => bot.say(channel, text).catch((error) => tell('failed', { text: String(error) })))
  .on('close', () => process.exit())
await bot.connect()
