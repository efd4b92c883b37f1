import { Button, Code, Title } from '@mantine/core'
import { IconArrowUpRight } from '@tabler/icons-react'
import { ProblemNote } from '../ui/ProblemNote'
import classes from './chat.module.css'
import { useModels } from './ModelProvider'

const EXAMPLES = ['What is a council?', 'How is the box shared?', 'Who can see what I ask?']

/** The page before the first question: what to ask, or why nothing can be asked. */
export function EmptyState({ onAsk }: { onAsk: (question: string) => void }) {
  const { models, chosen, problem, reload } = useModels()
  return (
    <div className={classes.empty}>
      <Title order={1} size="h2">
        What would you like to know?
      </Title>
      <ProblemNote problem={problem} onRetry={reload} />
      {models?.length === 0 && (
        <p className={classes.quiet}>
          No model is being served. Start one on the box with <Code>wirthforge up --model …</Code>
        </p>
      )}
      {chosen !== null && (
        <ul className={classes.examples} aria-label="Example questions">
          {EXAMPLES.map((question) => (
            <li key={question}>
              <Button
                variant="default"
                fw={400}
                rightSection={<IconArrowUpRight size={15} aria-hidden="true" />}
                onClick={() => onAsk(question)}
              >
                {question}
              </Button>
            </li>
          ))}
        </ul>
      )}
    </div>
  )
}
