import { expect, test } from 'vitest'
import { retryDelay, spread } from './retry'

const middle = () => 0.5

test('the wait doubles up to two seconds and stays there', () => {
  const waits = [0, 1, 2, 3, 4, 1_000].map((attempt) => retryDelay(attempt, middle))
  expect(waits).toEqual([250, 500, 1_000, 2_000, 2_000, 2_000])
})

test('jitter stays within its share', () => {
  expect(spread(1_000, 0.2, () => 0)).toBeCloseTo(800)
  expect(spread(1_000, 0.2, () => 1)).toBeCloseTo(1_200)
})
