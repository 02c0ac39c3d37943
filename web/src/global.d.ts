import type Hls from 'hls.js'
import type { PlayerStats } from './meter'

declare global {
  interface Window {
    /**
     * The watch page's player, for tests and for the curious at the console.
     * It is there while the watch page is open. `hls` is the instance in use
     * (another one after a rebuild), null while nothing is loaded and where the
     * browser plays HLS itself. `stats()` counts from the opening of the page.
     */
    millrace?: {
      readonly hls: Hls | null
      readonly video: HTMLVideoElement
      stats(): PlayerStats
    }
  }
}
