/** Keyboard shortcuts for the whole page, without a click on the player first. */

/** Elements that have their own use for the keyboard. */
const TYPING = 'input, textarea, select, [contenteditable]'
const PRESSING = 'button, a, summary, [role="button"], [role^="menuitem"]'

/**
 * Hands the keys pressed elsewhere on the page to the controller, which knows
 * the player's shortcuts, and handles our own wherever they are pressed.
 */
export function forwardKeys(
  controller: HTMLElement,
  own: Record<string, () => void>,
  signal: AbortSignal,
): void {
  const handle = (event: KeyboardEvent) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return
    const target = event.target as HTMLElement
    if (target.closest(TYPING)) return

    const action = own[event.key.toLowerCase()]
    if (action) {
      if (event.type === 'keydown' && !event.repeat) action()
      return
    }
    // The controller has seen its own; a button keeps Space and Enter.
    if (controller.contains(target) || controller.inert) return
    if ((event.key === ' ' || event.key === 'Enter') && target.closest(PRESSING)) return

    const copy = new KeyboardEvent(event.type, {
      key: event.key,
      code: event.code,
      shiftKey: event.shiftKey,
      repeat: event.repeat,
      cancelable: true,
    })
    controller.dispatchEvent(copy)
    if (copy.defaultPrevented) event.preventDefault()
  }
  document.addEventListener('keydown', handle, { signal })
  document.addEventListener('keyup', handle, { signal })
}
