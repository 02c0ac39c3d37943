/** What a chat shows, made of the events that come. Pure. */

export interface ChatUser {
  id: string
  login: string
  name: string
  color?: string
  badges?: string[]
}

export interface ChatSettings {
  slow?: number
  emote_only?: boolean
  unique?: boolean
  followers_only?: number
  subscribers_only?: boolean
  hold_links?: boolean
  shield?: boolean
}

/** An event of a room, as /chat/ws sends it. */
export interface ChatEvent {
  id: string
  kind: string
  /** When it happened, in milliseconds since 1970. */
  time: number
  user?: ChatUser | undefined
  text?: string
  action?: boolean
  first?: boolean
  nonce?: string
  reply?: { id: string; user: ChatUser; text: string } | undefined
  target?: string
  subject?: ChatUser
  ban?: boolean
  seconds?: number
  settings?: ChatSettings
}

/** One line of the chat. */
export interface ChatLine {
  id: string
  time: number
  kind: 'message' | 'announcement' | 'notice' | 'gap'
  user?: ChatUser | undefined
  text: string
  action: boolean
  reply?: ChatEvent['reply']
  deleted: boolean
}

/** How many lines are kept. */
export const MAX_LINES = 500

export interface ChatLog {
  lines: ChatLine[]
  /** The newest event's id: where to go on. */
  newest: string
  pinned: string | null
  settings: ChatSettings
}

export function emptyLog(): ChatLog {
  return { lines: [], newest: '', pinned: null, settings: {} }
}

/** Compares ids ("milliseconds-number"): below 0 where a is before b. */
export function compareIds(a: string, b: string): number {
  const [am = 0, an = 0] = a.split('-').map(Number)
  const [bm = 0, bn = 0] = b.split('-').map(Number)
  return am - bm || an - bn
}

/** Applies events, in their order. One that was applied before changes nothing. */
export function apply(log: ChatLog, events: ChatEvent[]): ChatLog {
  let { newest, pinned, settings } = log
  let lines = log.lines
  for (const event of events) {
    if (newest !== '' && compareIds(event.id, newest) <= 0) continue
    newest = event.id
    switch (event.kind) {
      case 'message':
      case 'announcement':
        lines = [...lines, lineOf(event)]
        break
      case 'deleted':
        lines = strike(lines, (line) => line.id === event.target)
        if (pinned === event.target) pinned = null
        break
      case 'cleared':
        lines = [...strike(lines, () => true), notice(event, 'The chat was cleared by a moderator.')]
        break
      case 'user_cleared':
        lines = strike(lines, (line) => line.user !== undefined && line.user.id === event.subject?.id)
        lines = [...lines, notice(event, banned(event))]
        break
      case 'pinned':
        pinned = event.target ?? null
        break
      case 'settings':
        settings = event.settings ?? {}
        lines = [...lines, notice(event, describe(settings))]
        break
    }
  }
  return { lines: lines.slice(-MAX_LINES), newest, pinned, settings }
}

/** Notes that something is missing before what comes next. */
export function gap(log: ChatLog, time: number): ChatLog {
  const line: ChatLine = { id: log.newest, time, kind: 'gap', text: 'Some messages are missing here.', action: false, deleted: false }
  return { ...log, lines: [...log.lines, line].slice(-MAX_LINES) }
}

function lineOf(event: ChatEvent): ChatLine {
  return {
    id: event.id,
    time: event.time,
    kind: event.kind === 'announcement' ? 'announcement' : 'message',
    user: event.user,
    text: event.text ?? '',
    action: event.action === true,
    reply: event.reply,
    deleted: false,
  }
}

function notice(event: ChatEvent, text: string): ChatLine {
  return { id: event.id, time: event.time, kind: 'notice', text, action: false, deleted: false }
}

function strike(lines: ChatLine[], which: (line: ChatLine) => boolean): ChatLine[] {
  return lines.map((line) => (line.deleted || line.kind === 'notice' || !which(line) ? line : { ...line, deleted: true, text: '' }))
}

function banned(event: ChatEvent): string {
  const name = event.subject?.name ?? 'Somebody'
  if (!event.ban) return `${name}'s messages were taken away.`
  return event.seconds ? `${name} may not write for ${span(event.seconds)}.` : `${name} was banned.`
}

/** What a room's settings ask of those who write, in words. */
export function describe(settings: ChatSettings): string {
  const rules: string[] = []
  if (settings.slow) rules.push(`one message each ${span(settings.slow)}`)
  if (settings.emote_only) rules.push('emotes only')
  if (settings.unique) rules.push('no message twice')
  if (settings.followers_only !== undefined) rules.push('followers only')
  if (settings.subscribers_only) rules.push('subscribers only')
  if (settings.hold_links) rules.push('no links')
  if (settings.shield) rules.push('only who has written here before')
  return rules.length === 0 ? 'Everybody may write.' : `Now: ${rules.join(', ')}.`
}

/** A time in words: "9 s", "4:12". */
export function span(seconds: number): string {
  if (seconds < 60) return `${Math.ceil(seconds)} s`
  const whole = Math.ceil(seconds)
  const hours = Math.floor(whole / 3600)
  const minutes = Math.floor((whole % 3600) / 60)
  const two = (n: number) => String(n).padStart(2, '0')
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`
}

/**
 * The lines that somebody sees whose picture is at a moment, in milliseconds since 1970; null: all.
 */
export function upTo(lines: ChatLine[], moment: number | null): ChatLine[] {
  if (moment === null) return lines
  let end = lines.length
  while (end > 0 && (lines[end - 1]?.time ?? 0) > moment) end--
  return end === lines.length ? lines : lines.slice(0, end)
}

/** A piece of a text: words, or an address that leads elsewhere. */
export interface Piece {
  text: string
  href?: string
  mention?: boolean
}

const ADDRESS = /\bhttps?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]]/gi

/** Takes a text apart into words, addresses and mentions (of "me", in lower case). */
export function pieces(text: string, me: string | null): Piece[] {
  const list: Piece[] = []
  let from = 0
  for (const match of text.matchAll(ADDRESS)) {
    list.push(...mentions(text.slice(from, match.index), me))
    list.push({ text: match[0], href: match[0] })
    from = match.index + match[0].length
  }
  list.push(...mentions(text.slice(from), me))
  return list.filter((piece) => piece.text !== '')
}

function mentions(text: string, me: string | null): Piece[] {
  if (!me) return [{ text }]
  return text
    .split(/(@[a-z0-9_]+)/i)
    .map((part) => (part.toLowerCase() === `@${me}` ? { text: part, mention: true } : { text: part }))
}

const HUES = [8, 28, 45, 88, 140, 165, 190, 210, 255, 285, 315, 340]

/** The hue of a name that has no colour of its own: the same for everybody. */
export function hueOf(id: string): number {
  let hash = 0
  for (const c of id) hash = (hash * 31 + c.charCodeAt(0)) >>> 0
  return HUES[hash % HUES.length] ?? 0
}
