import { Button, Text } from '@mantine/core'
import { IconDownload, IconShieldCheck } from '@tabler/icons-react'
import { useEffect, useState } from 'react'
import { asProblem, type Problem } from '../api/errors'
import { Loaded } from '../ui/Page'
import { fileOfDepartures, listDepartures, PAGE } from './calls'
import classes from './cloud.module.css'
import { LeftRow } from './LeftRow'
import type { Departure } from './wire'

interface State {
  rows: Departure[] | null
  hasMore: boolean
  loading: boolean
  problem: Problem | null
}

const EMPTY: State = { rows: null, hasMore: false, loading: true, problem: null }

/** Everything of one's own that left this box, the newest first. */
export function Left() {
  const { state, more } = useDepartures()
  const { rows, hasMore, loading } = state
  return (
    <Loaded resource={{ data: rows, problem: state.problem, reload: more }}>
      {(known) =>
        known.length === 0 ? (
          <Nothing />
        ) : (
          <>
            <ul className={classes.left} aria-label="What left this box">
              {known.map((departure) => (
                <LeftRow key={departure.seq} departure={departure} />
              ))}
            </ul>
            <div className={classes.leftFoot}>
              {hasMore && (
                <Button size="xs" variant="default" loading={loading} onClick={more}>
                  Show more
                </Button>
              )}
              <Button
                component="a"
                size="xs"
                variant="default"
                href={fileOfDepartures}
                download
                leftSection={<IconDownload size={14} />}
              >
                All of it as CSV
              </Button>
            </div>
          </>
        )
      }
    </Loaded>
  )
}

function useDepartures() {
  const [state, setState] = useState(EMPTY)
  const load = async (known: Departure[]) => {
    setState((old) => ({ ...old, loading: true, problem: null }))
    try {
      const page = await listDepartures(known.at(-1)?.seq ?? null)
      const rows = [...known, ...page]
      setState({ rows, hasMore: page.length === PAGE, loading: false, problem: null })
    } catch (reason) {
      setState((old) => ({ ...old, loading: false, problem: asProblem(reason) }))
    }
  }
  // biome-ignore lint/correctness/useExhaustiveDependencies: once, at the beginning
  useEffect(() => void load([]), [])
  return { state, more: () => void load(state.rows ?? []) }
}

function Nothing() {
  return (
    <div className={classes.nothing} data-testid="nothing-left">
      <IconShieldCheck size={34} stroke={1.4} aria-hidden="true" />
      <Text fw={550}>Nothing of yours has ever left this box.</Text>
      <Text size="sm" c="dimmed" maw="52ch">
        Whatever leaves is written down before its first byte goes: when, to whom, and how much. If
        something ever does, it stands here.
      </Text>
    </div>
  )
}
