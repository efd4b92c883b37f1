import { Text, Title, VisuallyHidden } from '@mantine/core'
import type { ReactNode } from 'react'
import type { Share } from '../api/client'
import { Loaded, Page } from '../ui/Page'
import { useNow } from '../ui/useNow'
import { useSlowly } from '../ui/useSlowly'
import { BudgetList } from './BudgetList'
import { EngineSlots } from './EngineSlots'
import type { ShareState } from './feed'
import { OwnLimits } from './OwnLimits'
import { RequestList } from './RequestList'
import classes from './sharing.module.css'
import { useShare } from './useShare'
import { councilSentence, shareSentence, weightSentence } from './words'

const SPEAK_EVERY_MS = 5000

export default function SharingPage() {
  const share = useShare()
  return (
    <Page
      title="Sharing"
      lead="Who gets how much of the box just now. It tells how many people there are, never who."
      action={share.data !== null && <Freshness live={share.live} />}
    >
      <Loaded resource={share}>{(data) => <Everything data={data} state={share} />}</Loaded>
    </Page>
  )
}

function Freshness({ live }: { live: boolean }) {
  return (
    <span className={classes.freshness} data-live={live} data-testid="freshness">
      {live ? 'live' : 'every 5 seconds'}
    </span>
  )
}

function Everything({ data, state }: { data: Share; state: ShareState }) {
  const now = useNow()
  const weight = weightSentence(data)
  // The limits are asked for anew when those that are pushed have changed.
  const limits = [data.weight, ...data.budgets.map(({ name, limit }) => `${name} ${limit}`)]
  return (
    <>
      <div>
        <Sentence text={shareSentence(data)} />
        {weight !== null && <Text size="sm">{weight}</Text>}
      </div>
      <Section title="Slots">
        {data.engines.length === 0 ? (
          <Text c="dimmed">No engine is running.</Text>
        ) : (
          <EngineSlots engines={data.engines} requests={data.requests} />
        )}
      </Section>
      {data.council != null && (
        <Section title="Councils">
          <Text size="sm" data-testid="council-room">
            {councilSentence(data.council)}
          </Text>
        </Section>
      )}
      <Section title="Your requests">
        <RequestList requests={data.requests} turns={state.turns} now={now} />
      </Section>
      <div className={classes.pair}>
        <Section title="Your budgets">
          <BudgetList budgets={data.budgets} passedMs={Math.max(0, now - state.at)} />
        </Section>
        <Section title="Your limits">
          <OwnLimits key={limits.join()} />
        </Section>
      </div>
    </>
  )
}

/** People come and go by the second; who listens hears of it every few. */
function Sentence({ text }: { text: string }) {
  const spoken = useSlowly(text, SPEAK_EVERY_MS)
  return (
    <>
      <p className={classes.sentence} aria-hidden="true" data-testid="share-sentence">
        {text}
      </p>
      <VisuallyHidden role="status">{spoken}</VisuallyHidden>
    </>
  )
}

function Section({ title, children }: { title: string; children: ReactNode }) {
  return (
    <section className={classes.section} aria-label={title}>
      <Title order={2} size="h5">
        {title}
      </Title>
      {children}
    </section>
  )
}
