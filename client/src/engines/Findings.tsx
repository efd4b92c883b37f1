import { Anchor, Text } from '@mantine/core'
import { IconCheck, IconQuestionMark, IconX } from '@tabler/icons-react'
import type { Engine } from '../api/client'
import { duration } from '../ui/format'
import classes from './engines.module.css'
import { type Finding, findingsOf, VERDICT_WORDS } from './words'

interface Props {
  engine: Engine
  isTesting: boolean
  onTest: () => void
}

const ICONS = { yes: IconCheck, no: IconX, unknown: IconQuestionMark }

/** What the conformance test found, and what follows where the engine does not do as it should. */
export function Findings({ engine, isTesting, onTest }: Props) {
  const { conformance: found, isolates_caches, is_up, models } = engine
  // Before a test there is nothing to say but what the adapter knows.
  const findings = findingsOf(found, isolates_caches).filter(
    ({ verdict }) => found !== null || verdict !== 'unknown',
  )
  const afterMs = found?.stopped_after_ms
  const more = ({ name, verdict }: Finding) =>
    name === 'stops' && verdict === 'yes' && typeof afterMs === 'number'
      ? `, after ${duration(afterMs)}`
      : ''
  const error = found?.error
  return (
    <>
      <ul className={classes.findings} aria-label="What its test found">
        {findings.map((finding) => {
          const Icon = ICONS[finding.verdict]
          return (
            <li key={finding.name} data-verdict={finding.verdict}>
              <Icon size={14} aria-hidden="true" />
              <span>
                {finding.promise}: {VERDICT_WORDS[finding.verdict]}
                {more(finding)}
              </span>
            </li>
          )
        })}
      </ul>
      {found === null && (
        <Text size="sm" c="dimmed" className={classes.untested}>
          It was not tested yet. It will be when nobody uses it and a model is in memory
          {is_up && models.length > 0 && !isTesting && (
            <>
              , or{' '}
              <Anchor component="button" type="button" inherit onClick={onTest}>
                now
              </Anchor>
            </>
          )}
          .
        </Text>
      )}
      {typeof error === 'string' && (
        <p className={classes.warning}>Its last test failed: {error}</p>
      )}
      {findings.map(
        ({ name, verdict, warning }) =>
          verdict === 'no' && (
            <p key={name} className={classes.warning}>
              {warning}
            </p>
          ),
      )}
    </>
  )
}
