/** Which page an address means. Pure. */

export type Route = { page: 'home' } | { page: 'watch' | 'chat' | 'overlay'; channel: string }

/**
 * "/" is the home page, "/{channel}" (a slash may follow) the watch page, "/{channel}/chat" its chat alone,
 * "/{channel}/overlay" that for a broadcast's own picture. No channel's name has capital letters: the
 * server redirects addresses that have, and links within the pages lead to the same.
 */
export function parseRoute(pathname: string): Route {
  const [first, second] = pathname.split('/').filter((segment) => segment !== '')
  if (first === undefined) return { page: 'home' }
  const page = second === 'chat' || second === 'overlay' ? second : 'watch'
  try {
    return { page, channel: decodeURIComponent(first).toLowerCase() }
  } catch {
    return { page, channel: first.toLowerCase() }
  }
}

export function watchPath(channel: string): string {
  return `/${encodeURIComponent(channel)}`
}
