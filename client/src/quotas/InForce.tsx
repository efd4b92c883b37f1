import { Table } from '@mantine/core'
import { LIMITS, ruleWords, valueWords } from './limits'
import classes from './quotas.module.css'
import type { Scope, Standing } from './scope'

/** Every limit as it holds at present, and the rule that it comes from. */
export function InForce({ scope, limits }: { scope: Scope; limits: Standing['limits'] }) {
  const own = { default: 'default', role: 'role ', user: 'user ' }[scope.kind]
  return (
    <div className={classes.frame}>
      <Table className={classes.table} aria-label="Limits in force">
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Limit</Table.Th>
            <Table.Th>In force</Table.Th>
            <Table.Th>From</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {LIMITS.map(({ name, label }) => {
            const { value, rule } = limits[name]
            return (
              <Table.Tr key={name} data-own={rule.startsWith(own)} data-testid={`in-force-${name}`}>
                <Table.Td>{label}</Table.Td>
                <Table.Td data-list={Array.isArray(value)}>{valueWords(name, value)}</Table.Td>
                <Table.Td>{ruleWords(rule)}</Table.Td>
              </Table.Tr>
            )
          })}
        </Table.Tbody>
      </Table>
    </div>
  )
}
