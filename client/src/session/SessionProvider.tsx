/**
 * Who is logged in, as the server sees it.
 *
 * The cookie is HttpOnly, so the page can only ask. It asks once at the start
 * and again after any 401: that may be an expired session or only a wrong
 * password in a form, and the server alone can tell which.
 */
import {
  createContext,
  type ReactNode,
  useCallback,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useState,
} from 'react'
import { api, onUnauthorized, type Principal, value } from '../api/client'
import { asProblem, type Problem } from '../api/errors'

type State =
  | { status: 'loading' }
  | { status: 'unreachable'; problem: Problem }
  | { status: 'known'; principal: Principal | null }

interface Session {
  state: State
  /** Asks the server again who is logged in. */
  refresh: () => Promise<void>
  /** Takes over the principal that a log in or a set-up answered with. */
  enter: (principal: Principal) => void
  logOut: () => Promise<void>
}

const Context = createContext<Session | null>(null)

export function SessionProvider({ children }: { children: ReactNode }) {
  const [state, setState] = useState<State>({ status: 'loading' })

  // An answer that was asked for before somebody logged in must not log them out again.
  const turn = useRef(0)
  const settle = useCallback((principal: Principal | null) => {
    turn.current++
    setState({ status: 'known', principal })
  }, [])

  const refresh = useCallback(async () => {
    const mine = ++turn.current
    try {
      const { principal } = await value(api.GET('/api/session'))
      if (mine === turn.current) settle(principal)
    } catch (reason) {
      const problem = asProblem(reason)
      // A box that is briefly away must not tear down a page somebody works in.
      setState((old) => (old.status === 'known' ? old : { status: 'unreachable', problem }))
    }
  }, [settle])

  useEffect(() => {
    void refresh()
    return onUnauthorized(() => void refresh())
  }, [refresh])

  const session = useMemo<Session>(
    () => ({
      state,
      refresh,
      enter: settle,
      logOut: async () => {
        await value(api.POST('/api/logout'))
        settle(null)
      },
    }),
    [state, refresh, settle],
  )
  return <Context value={session}>{children}</Context>
}

export function useSession(): Session {
  const session = useContext(Context)
  if (session === null) throw new Error('useSession needs a SessionProvider above it')
  return session
}
