import { Button, Group, Modal, Stack, Text } from '@mantine/core'
import { ProblemNote } from './ProblemNote'
import { useAction } from './useAction'

interface Props {
  title: string
  /** What will happen, in a sentence. */
  children: string
  action: string
  onConfirm: () => Promise<void>
  onClose: () => void
}

/** Asks before something that cannot be taken back. The safe answer has the focus. */
export function ConfirmDialog({ title, children, action, onConfirm, onClose }: Props) {
  const [confirm, { pending, problem }] = useAction(async () => {
    await onConfirm()
    onClose()
  })
  return (
    <Modal opened onClose={onClose} title={title}>
      <Stack gap="md">
        <Text size="sm">{children}</Text>
        <ProblemNote problem={problem} />
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={onClose} data-autofocus>
            Cancel
          </Button>
          <Button color="red" loading={pending} onClick={() => void confirm()}>
            {action}
          </Button>
        </Group>
      </Stack>
    </Modal>
  )
}
