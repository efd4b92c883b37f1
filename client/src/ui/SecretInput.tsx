import { PasswordInput, type PasswordInputProps } from '@mantine/core'
import { useUncontrolled } from '@mantine/hooks'

type Passed = Omit<
  PasswordInputProps,
  'value' | 'onChange' | 'visible' | 'onVisibilityChange' | 'visibilityToggleButtonProps'
>

interface Props extends Passed {
  value: string
  onChange: (value: string) => void
  /** Given together with `onVisibleChange` where several fields share one switch. */
  visible?: boolean
  onVisibleChange?: (visible: boolean) => void
}

/** A password field whose show/hide switch can be reached and understood without a mouse. */
export function SecretInput({ value, onChange, visible, onVisibleChange, ...rest }: Props) {
  const [shown, setShown] = useUncontrolled({
    ...(visible === undefined ? {} : { value: visible }),
    ...(onVisibleChange === undefined ? {} : { onChange: onVisibleChange }),
    defaultValue: false,
  })
  return (
    <PasswordInput
      {...rest}
      value={value}
      onChange={(event) => onChange(event.currentTarget.value)}
      visible={shown}
      onVisibilityChange={setShown}
      visibilityToggleButtonProps={{
        // Not "Show password": that would share the label of the field itself.
        'aria-label': 'Show what is typed',
        'aria-pressed': shown,
        'aria-hidden': false,
        tabIndex: 0,
      }}
    />
  )
}
