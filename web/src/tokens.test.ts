import { expect, test } from 'vitest'
import page from '../index.html?raw'

const files = import.meta.glob<string>('./**/*.{css,svelte}', { query: '?raw', import: 'default', eager: true })
const tokens = files['./tokens.css'] ?? ''
/** Colours by name, as CSS Color 4 lists them; "transparent" and "currentcolor" are none. */
const names =
  `aliceblue antiquewhite aqua aquamarine azure beige bisque black blanchedalmond blue blueviolet brown burlywood
  cadetblue chartreuse chocolate coral cornflowerblue cornsilk crimson cyan darkblue darkcyan darkgoldenrod darkgray
  darkgreen darkgrey darkkhaki darkmagenta darkolivegreen darkorange darkorchid darkred darksalmon darkseagreen
  darkslateblue darkslategray darkslategrey darkturquoise darkviolet deeppink deepskyblue dimgray dimgrey dodgerblue
  firebrick floralwhite forestgreen fuchsia gainsboro ghostwhite gold goldenrod gray green greenyellow grey honeydew
  hotpink indianred indigo ivory khaki lavender lavenderblush lawngreen lemonchiffon lightblue lightcoral lightcyan
  lightgoldenrodyellow lightgray lightgreen lightgrey lightpink lightsalmon lightseagreen lightskyblue lightslategray
  lightslategrey lightsteelblue lightyellow lime limegreen linen magenta maroon mediumaquamarine mediumblue
  mediumorchid mediumpurple mediumseagreen mediumslateblue mediumspringgreen mediumturquoise mediumvioletred
  midnightblue mintcream mistyrose moccasin navajowhite navy oldlace olive olivedrab orange orangered orchid
  palegoldenrod palegreen paleturquoise palevioletred papayawhip peachpuff peru pink plum powderblue purple
  rebeccapurple red rosybrown royalblue saddlebrown salmon sandybrown seagreen seashell sienna silver skyblue slateblue
  slategray slategrey snow springgreen steelblue tan teal thistle tomato turquoise violet wheat white whitesmoke yellow
  yellowgreen`.split(/\s+/)
const literal = new RegExp(
  String.raw`#[0-9a-f]{3,8}\b|\b(?:rgba?|hsla?|hwb|lab|lch|oklab|oklch|color)\([^)]*\)|(?<![\w-])(?:${names.join('|')})(?![\w-])`,
  'gi',
)

/** The colours written in declarations, and in attributes that take one. */
function literals(source: string): string[] {
  const plain = source.replace(/\/\*[\s\S]*?\*\/|<!--[\s\S]*?-->|<script[\s\S]*?<\/script>/g, '')
  const styles = /<style/.test(plain) || !/</.test(plain) ? plain.replace(/^[\s\S]*?<style[^>]*>/, '') : ''
  const values = [
    ...styles.matchAll(/[\w-]+\s*:([^;{}]+)[;}]/g),
    ...plain.matchAll(/\b(?:fill|stroke|color|stop-color|style)\s*=\s*"([^"]*)"/g),
  ]
  return values.flatMap(([, value = '']) => value.replace(/'[^']*'|url\([^)]*\)/g, '').match(literal) ?? [])
}

test.each(Object.keys(files).filter((name) => name !== './tokens.css'))('%s takes its colours from tokens.css', (name) => {
  const source = files[name] ?? ''
  expect(source).not.toBe('')
  expect(literals(source)).toEqual([])
})

test('a literal colour is found', () => {
  expect(literals('a { color: #fff; border: 1px solid red } b { background: rgb(1 2 3 / 0.5); }')).toEqual([
    '#fff',
    'red',
    'rgb(1 2 3 / 0.5)',
  ])
  expect(literals('{#each x as y}<path fill="navy" />{/each}\n<style>\n  p { color: hsl(1 2% 3%); }\n</style>')).toEqual([
    'hsl(1 2% 3%)',
    'navy',
  ])
  expect(literals("p { white-space: nowrap; color: color-mix(in oklab, var(--red) 4%, transparent); font: 'Linen'; }")).toEqual([])
})

test('every colour that is used is there', () => {
  const all = Object.values(files).join('\n')
  const defined = new Set([...all.matchAll(/(--[\w-]+)\s*[:=]/g)].map(([, name]) => name))
  const used = new Set([...all.matchAll(/var\((--[\w-]+)/g)].map(([, name]) => name))
  expect([...used].filter((name) => !defined.has(name))).toEqual([])
})

test('the browser’s own bars have the page’s colour', () => {
  const grounds = [...tokens.matchAll(/--ground:\s*(#[0-9a-f]+)/g)].map(([, colour]) => colour)
  const bars = [...page.matchAll(/theme-color.*content="(#[0-9a-f]+)"/g)].map(([, colour]) => colour)
  expect(bars).toEqual(grounds)
})
