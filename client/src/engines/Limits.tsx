import type { Engine } from '../api/client'
import { NUMBERS } from './draft'
import classes from './engines.module.css'
import { amountOf, NUMBER_WORDS, originOf, settingOf } from './numbers'

/** How much an engine is given at a time, and who says so. */
export function Limits({ engine: { name, numbers } }: { engine: Engine }) {
  if (numbers === null) return null
  return (
    <dl className={classes.limits} aria-label={`Limits of ${name}`}>
      {NUMBERS.map((field) => {
        const number = numbers[field]
        return (
          <div key={field} title={settingOf(number) ?? undefined}>
            <dt>{NUMBER_WORDS[field].label}</dt>
            <dd>
              {amountOf(field, number)} <span data-origin={number.origin}>{originOf(number)}</span>
            </dd>
          </div>
        )
      })}
    </dl>
  )
}
