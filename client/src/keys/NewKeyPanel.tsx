import type { NewApiKey } from '../api/client'
import { useModels } from '../chat/ModelProvider'
import { CopyBox } from '../ui/CopyBox'
import { OncePanel } from '../ui/OncePanel'
import { curlSnippet, pythonSnippet } from './snippets'

interface Props {
  fresh: NewApiKey
  onClose: () => void
}

/** The only sight of a new key, with two ways to try it out right away. */
export function NewKeyPanel({ fresh, onClose }: Props) {
  const { chosen } = useModels()
  const call = {
    base: `${window.location.origin}/v1`,
    key: fresh.key,
    model: chosen?.id ?? 'MODEL',
  }
  return (
    <OncePanel
      title={`“${fresh.label}” is ready`}
      note="Copy the key now. It is shown only this once."
      onClose={onClose}
    >
      <CopyBox text={fresh.key} caption="Key" copyLabel="Copy key" testId="new-key" />
      <CopyBox text={curlSnippet(call)} caption="curl" copyLabel="Copy curl" />
      <CopyBox text={pythonSnippet(call)} caption="Python, with openai" copyLabel="Copy Python" />
    </OncePanel>
  )
}
