/** Which page an address means. Pure. */

export type Route = { page: 'home' } | { page: 'watch'; channel: string }

/**
 * "/" is the home page, "/{channel}" (a slash may follow) the watch page. No channel's name has capital letters: the
 * server redirects addresses that have, and links within the pages lead to the same.
 */
export function parseRoute(pathname: string): Route {
  const first = pathname.split('/').find((segment) => segment !== '')
  if (first === undefined) return { page: 'home' }
  try {
    return { page: 'watch', channel: decodeURIComponent(first).toLowerCase() }
  } catch {
    return { page: 'watch', channel: first.toLowerCase() }
  }
}

export function watchPath(channel: string): string {
  return `/${encodeURIComponent(channel)}`
}
