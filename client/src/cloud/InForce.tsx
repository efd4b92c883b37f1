import { Table } from '@mantine/core'
import { span } from '../ui/format'
import classes from './cloud.module.css'
import type { Said, Standing } from './wire'
import { MODE_WORDS, PERSONAL_WORDS, WINNER_WORDS } from './words'

/** What holds for each model of each provider, what holds for all, and who said so. */
export function InForce({ standing }: { standing: Standing }) {
  const { in_force, allows_code, patience_ms } = standing
  return (
    <>
      <Table.ScrollContainer minWidth={560} className={classes.frame}>
        <Table className={classes.table} aria-label="What is in force">
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Model</Table.Th>
              <Table.Th>In force</Table.Th>
              <Table.Th>Said by</Table.Th>
              <Table.Th>With personal data</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {in_force.map((target) => (
              <Table.Tr key={`${target.provider} ${target.model}`} data-testid="in-force">
                <Table.Th scope="row">
                  {target.model} <span>at {target.provider}</span>
                </Table.Th>
                <Table.Td>{MODE_WORDS[target.mode].title}</Table.Td>
                <Table.Td>{WINNER_WORDS[target.won_by]}</Table.Td>
                <Table.Td>
                  {PERSONAL_WORDS[target.on_personal_data.value]}
                  <span> ({WINNER_WORDS[target.on_personal_data.won_by]})</span>
                </Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      <dl className={classes.facts}>
        <Fact
          title="Code and files"
          said={allows_code}
          words={allows_code.value ? 'may leave' : 'stay here'}
        />
        <Fact
          title="A wait on this box"
          said={patience_ms}
          words={`up to ${span(patience_ms.value)} is always preferred`}
        />
        <div>
          <dt>A secret</dt>
          <dd>
            never leaves<span>built in</span>
          </dd>
        </div>
      </dl>
    </>
  )
}

function Fact({ title, said, words }: { title: string; said: Said<unknown>; words: string }) {
  return (
    <div>
      <dt>{title}</dt>
      <dd>
        {words}
        <span>{WINNER_WORDS[said.won_by]}</span>
      </dd>
    </div>
  )
}
