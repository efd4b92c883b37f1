import type { EngineKind } from '../api/client'
import classes from './engines.module.css'
import { kindLabel } from './words'

/** The kinds that can be added; of a plugin that cannot be used, why. */
export function KindList({ kinds }: { kinds: EngineKind[] }) {
  const broken = kinds.filter(({ left_out }) => left_out !== null)
  return (
    <>
      <ul className={classes.models} aria-label="Kinds of engines">
        {kinds
          .filter(({ left_out }) => left_out === null)
          .map(({ name, is_built_in }) => (
            <li key={name}>
              {kindLabel(name)}
              {!is_built_in && <span> plugin</span>}
            </li>
          ))}
      </ul>
      {broken.map(({ name, left_out }) => (
        <p key={name + left_out} className={classes.warning} role="note">
          The plugin {name} is left out. {left_out}
        </p>
      ))}
    </>
  )
}
