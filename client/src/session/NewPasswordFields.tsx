import { useState } from 'react'
import { SecretInput } from '../ui/SecretInput'
import { MINIMUM, passwordProblem } from './passwords'

export interface NewPassword {
  password: string
  repeated: string
}

interface Props {
  label: string
  repeatLabel: string
  value: NewPassword
  onChange: (value: NewPassword) => void
  autoFocus?: boolean
}

/** A new password typed twice, with one switch that shows or hides both. */
export function NewPasswordFields({ label, repeatLabel, value, onChange, autoFocus }: Props) {
  const [visible, setVisible] = useState(false)
  const [left, setLeft] = useState(false)
  const problem = left ? passwordProblem(value.password, value.repeated) : null
  const shared = { visible, onVisibleChange: setVisible, autoComplete: 'new-password' }
  return (
    <>
      <SecretInput
        {...shared}
        label={label}
        description={`At least ${MINIMUM} characters. A few words are easier to remember.`}
        value={value.password}
        onChange={(password) => onChange({ ...value, password })}
        {...(autoFocus ? { 'data-autofocus': true, autoFocus } : {})}
      />
      <SecretInput
        {...shared}
        label={repeatLabel}
        value={value.repeated}
        onChange={(repeated) => onChange({ ...value, repeated })}
        onBlur={() => setLeft(value.repeated !== '')}
        error={problem}
      />
    </>
  )
}
