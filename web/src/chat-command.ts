/** What moderators type after a slash. Pure. */

import type { ChatSettings } from './chat-log'

/** An action, as /chat/ws takes it. */
export type ChatAction = { do: string; login?: string; seconds?: number; reason?: string; settings?: ChatSettings }

/** Ten minutes: how long a timeout lasts that doesn't say. */
const TIMEOUT = 600

/** Those that switch something on, and with "off" behind them off. */
const SWITCHES: Record<string, (on: boolean) => ChatSettings> = {
  emoteonly: (on) => ({ emote_only: on }),
  uniquechat: (on) => ({ unique: on }),
  shield: (on) => ({ shield: on }),
}

/** The action that a text asks for; null where it is a message. */
export function command(text: string, settings: ChatSettings): ChatAction | null {
  if (!text.startsWith('/') || text.startsWith('/me ')) return null
  const [word = '', who = '', ...rest] = text.slice(1).split(/\s+/)
  const login = who.replace(/^@/, '').toLowerCase()
  const change = SWITCHES[word.replace(/off$/, '')]
  if (change) return { do: 'settings', settings: { ...settings, ...change(!word.endsWith('off')) } }
  switch (word) {
    case 'ban':
    case 'unban':
    case 'mod':
    case 'unmod':
    case 'vip':
    case 'unvip':
      return { do: word, login, reason: rest.join(' ') }
    case 'timeout': {
      const seconds = Number.parseInt(rest[0] ?? '', 10)
      return seconds > 0
        ? { do: 'timeout', login, seconds, reason: rest.slice(1).join(' ') }
        : { do: 'timeout', login, seconds: TIMEOUT, reason: rest.join(' ') }
    }
    case 'clear':
      return { do: 'clear' }
    case 'announce':
      return { do: 'announce', reason: text.slice('/announce '.length) }
    case 'slow':
      return { do: 'settings', settings: { ...settings, slow: Number.parseInt(who, 10) || 30 } }
    case 'slowoff':
      return { do: 'settings', settings: { ...settings, slow: 0 } }
  }
  return null
}
