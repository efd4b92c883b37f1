/** Rules about clouds in plain words. Their meaning is the server's (server/privacy). */
import { money } from '../ui/format'
import type { Budget, Counts, Mode, OnPersonalData, Standing, Winner, Wish } from './wire'

export const MODE_WORDS: Record<Mode, { title: string; meaning: string }> = {
  never: { title: 'Never', meaning: 'Everything stays on this box; what has to wait, waits.' },
  ask: {
    title: 'Ask first',
    meaning: 'What would leave is shown, to the letter, and leaves only after a yes.',
  },
  pseudonymised: {
    title: 'Pseudonymised',
    meaning:
      'It leaves without asking, with names, addresses and the like replaced. In the answer they are put back.',
  },
  allow: { title: 'Allow', meaning: 'It leaves as it is, without asking.' },
}

export const PERSONAL_WORDS: Record<OnPersonalData, string> = {
  deny: 'it stays here',
  ask: 'its person is asked first',
  pseudonymise: 'it is replaced by other words',
}

/** Who said what is in force. */
export const WINNER_WORDS: Record<Winner, string> = {
  box: 'the rule of this box',
  cap: 'the bound that an admin has set for you',
  own: 'your own rule',
  conversation: 'the conversation',
  request: 'the request',
  'built-in': 'built in',
}

/** One sentence on what holds for one's own requests. */
export function standingSentence({ is_on, in_force, budget }: Standing): string {
  if (!is_on) return 'Nothing leaves this box: the cloud is switched off.'
  if (in_force.length === 0) return 'Nothing leaves this box: there is no provider.'
  if (budget.limit_micros === 0) return 'Nothing leaves this box: you have no budget for it.'
  const modes = new Set(in_force.map(({ mode }) => mode))
  const [only] = modes
  if (modes.size > 1 || only === undefined) {
    return 'What may leave this box depends on the provider and its model.'
  }
  return SENTENCES[only]
}

const SENTENCES: Record<Mode, string> = {
  never: 'Nothing of yours leaves this box.',
  ask: 'Nothing of yours leaves this box before you have seen it and said yes.',
  pseudonymised: 'When the box is full, your questions may leave it with personal data replaced.',
  allow: 'When the box is full, your questions may leave it as they are.',
}

export const WISH_WORDS: Record<Exclude<Wish, null>, { title: string; meaning: string }> = {
  private: {
    title: 'Private',
    meaning: 'Nothing of it can leave this box, whatever the rules say.',
  },
  ...MODE_WORDS,
}

export const AS_USUAL = { title: 'As usual', meaning: 'As your rules have it.' }

export const micros = (amount: number) => money(amount / 1_000_000)

export function budgetSentence({ limit_micros, spent_micros, reserved_micros }: Budget): string {
  const held = reserved_micros > 0 ? `, and ${micros(reserved_micros)} are held for what runs` : ''
  if (limit_micros === null) return `${micros(spent_micros)} this month${held}. There is no limit.`
  if (limit_micros === 0) return 'You have none, so nothing leaves. An admin can give you one.'
  return `${micros(spent_micros)} of ${micros(limit_micros)} this month${held}.`
}

const TYPES: Record<string, string> = {
  PERSON: 'name',
  EMAIL: 'e-mail address',
  PHONE: 'phone number',
  ADDRESS: 'postal address',
  PLACE: 'place',
  ORGANISATION: 'organisation',
  BIRTH_DATE: 'date of birth',
  AGE: 'age',
  CREDIT_CARD: 'payment card number',
  IBAN: 'IBAN',
  IP_ADDRESS: 'IP address',
  URL: 'web address',
  USER_NAME: 'user name',
  CODE: 'piece of code',
  ATTACHMENT: 'attachment',
  FILE_NAME: 'file name',
}

/** "2 names, 1 e-mail address"; what has no word here is told by its type. */
export function foundWords(counts: Counts): string {
  const words = Object.entries(counts).map(([type, count]) => {
    const word = typeWord(type)
    return `${count} ${count === 1 ? word : plural(word)}`
  })
  return words.join(', ')
}

export const typeWord = (type: string) => TYPES[type] ?? type.toLowerCase().replaceAll('_', ' ')

/** "addresses", "pieces of code". */
function plural(word: string): string {
  const [head, ...rest] = word.split(' of ')
  const many = /(s|sh|ch|x)$/.test(head ?? '') ? `${head}es` : `${head}s`
  return [many, ...rest].join(' of ')
}
