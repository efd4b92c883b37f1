import type { Share } from '../api/client'

const NUMBERS = ['No', 'One', 'Two', 'Three', 'Four', 'Five', 'Six', 'Seven', 'Eight', 'Nine']

/** Percent that one would not say as percent; the server rounds them down. */
const FRACTIONS: Record<number, string> = {
  100: 'all of it',
  80: 'four fifths',
  75: 'three quarters',
  66: 'two thirds',
  60: 'three fifths',
  50: 'a half',
  40: 'two fifths',
  33: 'a third',
  25: 'a quarter',
  20: 'a fifth',
  16: 'a sixth',
  0: 'less than a hundredth',
}

/** "Two people are using the box. Your share is a half." */
export function shareSentence({ people, share_percent }: Share): string {
  if (people === 0) return 'Nobody is using the box.'
  const number = NUMBERS[people] ?? String(people)
  if (share_percent === null) {
    return people === 1
      ? 'One other person is using the box.'
      : `${number} other people are using the box.`
  }
  if (people === 1) return 'You have the box to yourself.'
  const part = FRACTIONS[share_percent] ?? `${share_percent}\u00a0%`
  return `${number} people are using the box. Your share is ${part}.`
}

/** "A council would have 2 members now: a third member, …" */
export function councilSentence({ size, reason }: NonNullable<Share['council']>): string {
  const why = reason.replace(/^\d+ of \d+: /, '')
  return `A council would have ${size} member${size === 1 ? '' : 's'} now: ${why}`
}

/** Only where it is not the normal one. */
export function weightSentence({ weight }: Share): string | null {
  if (weight === 100) return null
  const times = weight / 100
  if (times > 1 && Number.isInteger(times)) {
    return `Your weight is ${weight}\u00a0%: ${times === 2 ? 'twice' : `${times} times`} a normal share.`
  }
  return `Your weight is ${weight}\u00a0% of a normal share.`
}
