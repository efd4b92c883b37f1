import { NativeSelect } from '@mantine/core'
import { useChatIsEmpty } from '../chat/ChatContext'
import { useModels } from '../chat/ModelProvider'
import classes from './council.module.css'
import { explanationOf, isSizable, SIZES } from './names'

const CHOICES = [
  { value: '', label: 'as many members as there is room for' },
  ...SIZES.map((size) => ({ value: size, label: `${size} members` })),
]

/** Of what size the chosen council is to be, and, before the first question, what it does. */
export function CouncilChoice() {
  const empty = useChatIsEmpty()
  const { chosen, councilSize, chooseCouncilSize } = useModels()
  if (chosen === null || !chosen.council) return null
  return (
    <div className={classes.choice} data-testid="council-choice">
      {isSizable(chosen.id) && (
        <NativeSelect
          aria-label="Council size"
          size="xs"
          data={CHOICES}
          value={councilSize}
          onChange={(event) => chooseCouncilSize(event.currentTarget.value)}
        />
      )}
      {empty && <span>{explanationOf(chosen.id)}</span>}
    </div>
  )
}
