import { NativeSelect, Text, TextInput } from '@mantine/core'
import { RANGES, type Range, type RangeName, rangeOf, rangeProblem } from './days'
import classes from './usage.module.css'

export interface Picked extends Range {
  name: RangeName
}

interface Props {
  picked: Picked
  onPick: (picked: Picked) => void
}

/** Of which days: one of a few usual ranges, or two days. */
export function RangePicker({ picked, onPick }: Props) {
  const problem = rangeProblem(picked)
  const pick = (name: RangeName) =>
    onPick({ name, ...(rangeOf(name) ?? { first: picked.first, last: picked.last }) })
  return (
    <>
      <NativeSelect
        aria-label="Days"
        size="xs"
        data={RANGES}
        value={picked.name}
        onChange={(event) => pick(event.currentTarget.value as RangeName)}
      />
      {picked.name === 'own' && (
        <div className={classes.days}>
          <TextInput
            type="date"
            size="xs"
            aria-label="First day"
            value={picked.first}
            max={picked.last}
            onChange={(event) => onPick({ ...picked, first: event.currentTarget.value })}
          />
          <span aria-hidden="true">to</span>
          <TextInput
            type="date"
            size="xs"
            aria-label="Last day"
            value={picked.last}
            min={picked.first}
            onChange={(event) => onPick({ ...picked, last: event.currentTarget.value })}
          />
          {problem !== null && (
            <Text size="xs" c="var(--mantine-color-error)" role="alert">
              {problem}
            </Text>
          )}
        </div>
      )}
    </>
  )
}
