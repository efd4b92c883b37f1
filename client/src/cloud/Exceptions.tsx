import { ActionIcon, Button, NativeSelect, Text, TextInput } from '@mantine/core'
import { IconPlus, IconTrash } from '@tabler/icons-react'
import classes from './cloud.module.css'
import type { PartProps } from './RuleForm'
import { type Exception, MODES } from './wire'
import { MODE_WORDS } from './words'

const CHOICES = MODES.map((mode) => ({ value: mode, label: MODE_WORDS[mode].title }))
const plain = { autoComplete: 'off', autoCapitalize: 'none', spellCheck: false, size: 'xs' }

/** Other words for some providers and models; the most specific one that fits counts. */
export function Exceptions({ draft, mistakes, onChange }: PartProps) {
  const { exceptions } = draft
  const change = (at: number, to: Partial<Exception>) =>
    onChange({
      exceptions: exceptions.map((each, index) => (index === at ? { ...each, ...to } : each)),
    })
  return (
    <fieldset className={classes.exceptions}>
      <legend>Other rules for some providers and models</legend>
      {exceptions.map((exception, at) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: they have no name of their own
        <div key={at} className={classes.exception}>
          <TextInput
            {...plain}
            aria-label={`Provider of exception ${at + 1}`}
            placeholder="provider"
            value={exception.provider}
            onChange={({ currentTarget }) => change(at, { provider: currentTarget.value })}
          />
          <TextInput
            {...plain}
            aria-label={`Model of exception ${at + 1}`}
            placeholder="model, or *"
            value={exception.model}
            onChange={({ currentTarget }) => change(at, { model: currentTarget.value })}
          />
          <NativeSelect
            size="xs"
            aria-label={`Rule of exception ${at + 1}`}
            data={CHOICES}
            value={exception.mode}
            onChange={({ currentTarget: { value } }) =>
              change(at, { mode: value as Exception['mode'] })
            }
          />
          <ActionIcon
            variant="subtle"
            color="gray"
            aria-label={`Remove exception ${at + 1}`}
            onClick={() => onChange({ exceptions: exceptions.filter((_, index) => index !== at) })}
          >
            <IconTrash size={15} />
          </ActionIcon>
        </div>
      ))}
      {mistakes.exceptions !== undefined && (
        <Text size="xs" c="var(--mantine-color-error)" role="alert">
          {mistakes.exceptions}
        </Text>
      )}
      <Button
        size="compact-sm"
        variant="default"
        mr="auto"
        leftSection={<IconPlus size={14} />}
        onClick={() =>
          onChange({ exceptions: [...exceptions, { provider: '', model: '*', mode: 'never' }] })
        }
      >
        Add an exception
      </Button>
    </fieldset>
  )
}
