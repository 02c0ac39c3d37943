/** What is read from a media element, and how it is asked to play. */

/** Seconds that are buffered ahead of the playhead. */
export function bufferedAhead(video: HTMLVideoElement): number {
  const { buffered, currentTime } = video
  for (let i = 0; i < buffered.length; i++) {
    if (buffered.start(i) <= currentTime + 0.1 && currentTime <= buffered.end(i)) {
      return buffered.end(i) - currentTime
    }
  }
  return 0
}

/** The first moment that can be sought to. */
export function seekableStart({ seekable }: HTMLVideoElement): number {
  return seekable.length > 0 ? seekable.start(0) : 0
}

/** The last one; null where there is none. */
export function seekableEnd({ seekable }: HTMLVideoElement): number | null {
  return seekable.length > 0 ? seekable.end(seekable.length - 1) : null
}

/** "aborted": a later load took the element; it will call play() itself. */
export async function tryToPlay(video: HTMLVideoElement): Promise<'played' | 'refused' | 'aborted'> {
  try {
    await video.play()
    return 'played'
  } catch (error) {
    return error instanceof DOMException && error.name === 'NotAllowedError' ? 'refused' : 'aborted'
  }
}
