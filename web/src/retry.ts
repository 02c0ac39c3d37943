/** How long to wait before trying again. Pure but for the dice. */

const FIRST_MS = 250
const LONGEST_MS = 2_000

/**
 * The wait before the given attempt (0 is the first): it doubles up to 2 s, and
 * is spread by a quarter, so that viewers who lost a server together don't come
 * back together.
 */
export function retryDelay(attempt: number, random: () => number = Math.random): number {
  const base = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(attempt, 10))
  return spread(base, 0.25, random)
}

/** The value, changed by up to the given share of itself, up or down. */
export function spread(value: number, share: number, random: () => number = Math.random): number {
  return value * (1 - share + 2 * share * random())
}
