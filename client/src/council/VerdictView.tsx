import { VisuallyHidden } from '@mantine/core'
import type { Council } from './council'
import shared from './council.module.css'
import type { Opinion, Verdict } from './events'
import classes from './verdict.module.css'
import { authorWords, memberName, percent, sortedOpinions, verdictWords } from './words'

interface Props {
  council: Council
  verdict: Verdict
}

/** How they agreed: how much, who holds what, and who wrote the answer. */
export function VerdictView({ council, verdict }: Props) {
  const author = authorWords(council, verdict)
  const opinions = sortedOpinions(verdict)
  // One voice agrees with itself.
  const several = opinions.reduce((voices, { labels }) => voices + labels.length, 0) > 1
  return (
    <section className={classes.verdict} aria-label="How they agreed" data-testid="verdict">
      <p className={classes.verdictLine}>{verdictWords(verdict)}</p>
      {author !== null && <p className={classes.author}>Final answer: {author}</p>}
      {several && verdict.agreement !== null && <AgreementMeter agreement={verdict.agreement} />}
      {several && (
        <ul className={classes.opinions} aria-label="Opinions">
          {opinions.map((opinion) => (
            <OpinionLine
              key={opinion.labels.join(' ')}
              opinion={opinion}
              council={council}
              wins={verdict.winner !== null && opinion.labels.includes(verdict.winner)}
            />
          ))}
        </ul>
      )}
    </section>
  )
}

function AgreementMeter({ agreement }: { agreement: number }) {
  return (
    <div className={classes.agreement}>
      <span aria-hidden="true">Agreement {percent(agreement)}</span>
      <span className={classes.bar} aria-hidden="true">
        <i style={{ width: `${agreement * 100}%` }} />
      </span>
      <VisuallyHidden>
        <meter
          aria-label="Agreement"
          aria-valuetext={percent(agreement)}
          min={0}
          max={1}
          value={agreement}
        />
      </VisuallyHidden>
    </div>
  )
}

interface OpinionProps {
  opinion: Opinion
  council: Council
  wins: boolean
}

function OpinionLine({ opinion, council, wins }: OpinionProps) {
  const { members } = council
  const holders = members.filter(({ label }) => opinion.labels.includes(label))
  const names = holders.map((member) => `${member.label}, ${memberName(member, members)}`)
  return (
    <li className={classes.opinion} data-wins={wins || undefined} data-testid="opinion">
      <span className={classes.holders} role="img" aria-label={names.join('; ')}>
        {opinion.labels.map((label) => (
          <span key={label} className={shared.label}>
            {label}
          </span>
        ))}
      </span>
      <span className={classes.opinionText}>{opinion.answer}</span>
    </li>
  )
}
