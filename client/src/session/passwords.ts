export const MINIMUM = 10

/** What is wrong with a new password, in one sentence; null when it will do. */
export function passwordProblem(password: string, repeated: string): string | null {
  // The server counts characters, not UTF-16 units.
  if ([...password].length < MINIMUM) return `Use at least ${MINIMUM} characters.`
  if (password !== repeated) return 'The two passwords differ.'
  return null
}
