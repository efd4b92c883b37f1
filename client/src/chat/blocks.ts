/**
 * Cuts Markdown into top-level blocks that can be rendered one by one.
 *
 * A streaming answer only changes at its end, so all blocks but the last can
 * stay as they were drawn. A cut is made at blank lines outside code fences,
 * unless the next line continues what stands before: it is indented (the body
 * of a list item) or is the next item of the same list. Joined together, the
 * blocks are the text again. Definitions that other blocks may refer to
 * (`[1]: …`) tie the text together; it is then left in one piece.
 */
const FENCE = /^\s*(`{3,}|~{3,})/
const ITEM = /^\s{0,3}(?:[-*+]|\d{1,9}[.)])\s/
const DEFINITION = /^ {0,3}\[[^\]\n]+\]:/m

export function splitBlocks(text: string): string[] {
  if (text === '') return []
  if (DEFINITION.test(text)) return [text]

  const blocks: string[] = []
  let block = ''
  let fence: string | null = null
  let afterBlank = false

  for (const line of text.match(/[^\n]*\n|[^\n]+$/g) ?? []) {
    const blank = fence === null && line.trim() === ''
    if (afterBlank && !blank && block.trim() !== '' && !continues(block, line)) {
      blocks.push(block)
      block = ''
    }
    block += line
    fence = fenceAfter(fence, line)
    afterBlank = blank
  }
  blocks.push(block)
  return blocks
}

function continues(block: string, line: string): boolean {
  return /^(?: {2}|\t)/.test(line) || (ITEM.test(line) && ITEM.test(block.trimStart()))
}

/** The marker of the fence that is open after `line`; null when none is. */
function fenceAfter(open: string | null, line: string): string | null {
  const marker = FENCE.exec(line)?.[1]
  if (marker === undefined) return open
  if (open === null) return marker
  const closes = marker[0] === open[0] && marker.length >= open.length && line.trim() === marker
  return closes ? null : open
}
