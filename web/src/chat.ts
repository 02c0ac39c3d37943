/** The connection to a chat: it comes back by itself, goes on where it was, and sends nothing twice. */

import { apply, emptyLog, gap, type ChatEvent, type ChatLog, type ChatSettings, type ChatUser } from './chat-log'
import { retryDelay } from './retry'

/** Why a message wasn't taken. */
export interface Refused {
  code: string
  text: string
  /** When to try again, in milliseconds since 1970; 0: nobody knows. */
  until: number
}

export interface ChatState {
  /** `closed`: the server said not to come back. */
  connection: 'connecting' | 'open' | 'reconnecting' | 'offline' | 'closed'
  log: ChatLog
  you: ChatUser | null
  role: string
  /** Of the newest message that was refused; null once one was taken. */
  refused: Refused | null
  /** The message that is on its way. */
  sending: boolean
  chatters: number
  /** Why the connection doesn't come back, or the room isn't there. */
  trouble: string
}

export interface ChatConfig {
  url: string
  room: string
  token: string | null
  onChange: (state: ChatState) => void
  /** A message was taken: the box may be emptied. */
  onSent: () => void
}

/** Close codes from which on the server says not to come back. */
const FINAL = 4100
/** How many events are asked for at the beginning. */
const HISTORY = 100
/** A connection that said nothing for so long after a ping is taken for dead. */
const SILENCE_MS = 10_000
const PING_MS = 20_000
/** Events that come together are shown together, so often. */
const FLUSH_MS = 100

export class ChatClient {
  readonly #config: ChatConfig
  #state: ChatState
  #socket: WebSocket | null = null
  #attempt = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  #ping: ReturnType<typeof setInterval> | undefined
  #silent: ReturnType<typeof setTimeout> | undefined
  #flush: ReturnType<typeof setTimeout> | undefined
  #events: ChatEvent[] = []
  #outgoing: { nonce: string; text: string; reply: string } | null = null
  readonly #stopped = new AbortController()

  constructor(config: ChatConfig) {
    this.#config = config
    this.#state = {
      connection: 'connecting',
      log: emptyLog(),
      you: null,
      role: '',
      refused: null,
      sending: false,
      chatters: 0,
      trouble: '',
    }
    const { signal } = this.#stopped
    addEventListener('online', () => this.#wake(), { signal })
    addEventListener('offline', () => this.#set({ connection: 'offline' }), { signal })
    document.addEventListener('visibilitychange', () => !document.hidden && this.#check(), { signal })
    this.#connect()
  }

  stop(): void {
    this.#stopped.abort()
    clearTimeout(this.#timer)
    clearTimeout(this.#flush)
    this.#hangUp()
  }

  /** Sends a message. It stays the caller's until onSent is called. */
  send(text: string, reply = ''): void {
    if (this.#outgoing) return
    this.#outgoing = { nonce: nonce(), text, reply }
    this.#set({ sending: true, refused: null })
    this.#deliver()
  }

  /** Does what a moderator asks for, such as {do: 'timeout', login, seconds}. */
  act(action: object): void {
    this.#say({ type: 'act', room: this.#config.room, nonce: nonce(), ...action })
  }

  #set(change: Partial<ChatState>): void {
    if (this.#stopped.signal.aborted) return
    this.#state = { ...this.#state, ...change }
    this.#config.onChange(this.#state)
  }

  #connect(): void {
    clearTimeout(this.#timer)
    this.#hangUp()
    const socket = new WebSocket(this.#config.url)
    this.#socket = socket
    this.#silent = setTimeout(() => socket.close(), SILENCE_MS)
    socket.onopen = () => {
      if (this.#config.token) this.#say({ type: 'auth', token: this.#config.token })
      this.#say({ type: 'join', room: this.#config.room, after: this.#state.log.newest, history: HISTORY })
      this.#ping = setInterval(() => this.#check(), PING_MS)
    }
    socket.onmessage = (message) => {
      if (socket === this.#socket) this.#take(JSON.parse(String(message.data)) as Answer)
    }
    socket.onclose = (event) => {
      if (socket === this.#socket) this.#lost(event.code, event.reason)
    }
  }

  #hangUp(): void {
    clearInterval(this.#ping)
    clearTimeout(this.#silent)
    const socket = this.#socket
    this.#socket = null
    socket?.close()
  }

  /** Asks whether the other end is there: after sleep a dead connection looks like a live one. */
  #check(): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) {
      if (this.#state.connection !== 'closed') this.#wake()
      return
    }
    const asked = this.#socket
    clearTimeout(this.#silent)
    this.#silent = setTimeout(() => asked.close(), SILENCE_MS)
    this.#say({ type: 'ping' })
  }

  #wake(): void {
    if (this.#stopped.signal.aborted || this.#state.connection === 'closed') return
    if (this.#socket && this.#socket.readyState <= WebSocket.OPEN) return
    this.#connect()
  }

  #lost(code: number, reason: string): void {
    this.#hangUp()
    if (this.#stopped.signal.aborted) return
    if (code >= FINAL && code < 5000) {
      this.#set({ connection: 'closed', trouble: reason })
      return
    }
    const connection = navigator.onLine ? (this.#state.connection === 'connecting' ? 'connecting' : 'reconnecting') : 'offline'
    this.#set({ connection, trouble: this.#attempt >= 3 ? 'The chat can’t be reached. A proxy in front of the server must pass websockets (the headers Upgrade and Connection).' : '' })
    this.#timer = setTimeout(() => this.#connect(), retryDelay(this.#attempt++))
  }

  #say(message: object): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message))
  }

  #deliver(): void {
    const message = this.#outgoing
    if (message) this.#say({ type: 'send', room: this.#config.room, ...message })
  }

  #take(answer: Answer): void {
    clearTimeout(this.#silent)
    switch (answer.type) {
      case 'event':
        this.#events.push(answer)
        this.#flush ??= setTimeout(() => this.#show(), FLUSH_MS)
        break
      case 'welcome':
        this.#set({ you: answer.you ?? null })
        break
      case 'joined':
        this.#attempt = 0
        this.#set({ connection: 'open', trouble: '', role: answer.role ?? '', chatters: answer.chatters ?? 0, log: { ...this.#state.log, settings: answer.settings ?? {} } })
        this.#deliver() // what was on its way when the connection broke: the server knows its nonce
        break
      case 'gap':
        this.#show()
        this.#set({ log: gap(this.#state.log, Date.now()) })
        break
      case 'sent':
        if (answer.nonce !== this.#outgoing?.nonce) break
        this.#outgoing = null
        this.#set({ sending: false, refused: null })
        this.#config.onSent()
        break
      case 'refused':
        this.#refuse(answer)
        break
    }
  }

  #refuse(answer: Answer): void {
    const refused: Refused = { code: answer.code ?? '', text: answer.text ?? '', until: answer.until ?? 0 }
    if (refused.code === 'no_room') this.#set({ connection: 'closed', trouble: 'There is no chat here.' })
    if (refused.code === 'token') this.#set({ you: null })
    if (answer.nonce && answer.nonce === this.#outgoing?.nonce) this.#outgoing = null
    this.#set({ sending: this.#outgoing !== null, refused })
  }

  #show(): void {
    clearTimeout(this.#flush)
    this.#flush = undefined
    const events = this.#events
    this.#events = []
    if (events.length > 0) this.#set({ log: apply(this.#state.log, events) })
  }
}

interface Answer extends ChatEvent {
  type: string
  you?: ChatUser
  role?: string
  chatters?: number
  settings?: ChatSettings
  code?: string
  until?: number
}

function nonce(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, '0')).join('')
}

/** Where the chat of this page's server is. */
export function chatURL(at: { protocol: string; host: string } = location): string {
  return `${at.protocol === 'https:' ? 'wss' : 'ws'}://${at.host}/chat/ws`
}
