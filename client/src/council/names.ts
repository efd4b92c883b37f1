/**
 * The names of councils, which are names of models: `council` (the server
 * chooses the size), `council:3`, `council:self` (several samples of one model),
 * `council:self:3`, and those that admins define.
 */
export const SIZES = ['2', '3', '4', '5', '6'] as const

/** True where the asker may say how many are to answer. */
export const isSizable = (id: string) => id === 'council' || id === 'council:self'

/** The name to ask for; an empty size leaves it to the server. */
export function withSize(id: string, size: string): string {
  return isSizable(id) && SIZES.some((known) => known === size) ? `${id}:${size}` : id
}

/** The model, and the size where it is one of a council, of a name that was asked for; null for one that is gone. */
export function partsOf(
  name: string,
  isThere: (id: string) => boolean,
): { id: string; size: string | null } | null {
  if (isThere(name)) return { id: name, size: isSizable(name) ? '' : null }
  const at = name.lastIndexOf(':')
  const [id, size] = [name.slice(0, at), name.slice(at + 1)]
  return withSize(id, size) === name && isThere(id) ? { id, size } : null
}

/** One sentence on what such a council does. */
export function explanationOf(id: string): string {
  if (id === 'council') return 'Several models answer, and one answer is made of theirs.'
  if (id === 'council:self')
    return 'One model answers several times, and one answer is made of these.'
  return 'Several models answer as an admin of this box has arranged it.'
}

/** As the picker lists it: the name, as every client asks for it, and what it is. */
export function titleOf(id: string): string {
  if (id === 'council') return 'council · several models'
  if (id === 'council:self') return 'council:self · one model, several times'
  return id
}
