import { VisuallyHidden } from '@mantine/core'
import { type Answer, isOpen } from '../chat/answer'
import { useSlowly } from '../ui/useSlowly'
import { spokenWords } from './words'

const SPEAK_EVERY_MS = 6000

/** Who is at what, for screen readers. It stands outside the log, which is silent while busy. */
export function CouncilVoice({ answer }: { answer: Answer | null }) {
  const council = answer !== null && isOpen(answer) ? answer.council : null
  const words = council === null ? '' : spokenWords(council)
  const spoken = useSlowly(words, SPEAK_EVERY_MS)
  return (
    <VisuallyHidden role="status" data-testid="council-voice">
      {words === '' ? '' : spoken}
    </VisuallyHidden>
  )
}
