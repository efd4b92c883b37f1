import { VisuallyHidden } from '@mantine/core'
import type { Answer } from '../chat/answer'

/** Says to ears that a question waits. It stands outside the log, which is silent while an answer grows. */
export function AskVoice({ answer }: { answer: Answer | null }) {
  const asks = answer?.asks ?? null
  return (
    <VisuallyHidden role="status" data-testid="cloud-voice">
      {asks !== null &&
        `This request may leave the box, to ${asks.provider}, if you say yes. The question stands above the message field.`}
    </VisuallyHidden>
  )
}
