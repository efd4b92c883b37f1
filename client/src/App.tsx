import { Button, Center, Loader, MantineProvider, Text } from '@mantine/core'
import { lazy, type ReactNode, Suspense } from 'react'
import { Redirect, Route, Switch, useLocation } from 'wouter'
import { CHAT_ROUTE } from './chat/ChatContext'
import LoginPage from './session/LoginPage'
import { loginPath } from './session/next'
import { SessionProvider, useSession } from './session/SessionProvider'
import { Shell } from './shell/Shell'
import { theme } from './theme'
import { DoorPage } from './ui/DoorPage'
import NotFoundPage from './ui/NotFoundPage'

const SetupPage = lazy(() => import('./session/SetupPage'))
const ChatPage = lazy(() => import('./chat/ChatPage'))
const KeysPage = lazy(() => import('./keys/KeysPage'))
const UsagePages = lazy(() => import('./usage/UsagePages'))
const SharingPage = lazy(() => import('./sharing/SharingPage'))
const CloudPages = lazy(() => import('./cloud/CloudPages'))
const PeoplePage = lazy(() => import('./people/PeoplePage'))
const QuotasPage = lazy(() => import('./quotas/QuotasPage'))
const ScopePage = lazy(() => import('./quotas/ScopePage'))
const EnginesPage = lazy(() => import('./engines/EnginesPage'))

export function App() {
  return (
    <MantineProvider theme={theme} defaultColorScheme="auto">
      <SessionProvider>
        <Suspense fallback={<Waiting />}>
          <Switch>
            <Route path="/setup" component={SetupPage} />
            <Route>
              <Gate />
            </Route>
          </Switch>
        </Suspense>
      </SessionProvider>
    </MantineProvider>
  )
}

/** Decides between waiting, the log-in page and the app. */
function Gate() {
  const { state, refresh } = useSession()
  const [path] = useLocation()
  if (state.status === 'loading') return <Waiting />
  if (state.status === 'unreachable') {
    return (
      <DoorPage title="No connection">
        <Text role="alert">{state.problem.message}</Text>
        <Button onClick={() => void refresh()}>Try again</Button>
      </DoorPage>
    )
  }
  const { principal } = state
  if (principal === null) {
    return path === '/login' ? <LoginPage /> : <Redirect to={loginPath(path)} replace />
  }
  return (
    // The key: whoever logs in next finds nothing of the conversation before.
    <Shell key={principal.id} principal={principal}>
      <Suspense fallback={<Waiting />}>
        <Pages admin={principal.role === 'admin'} />
      </Suspense>
    </Shell>
  )
}

function Pages({ admin }: { admin: boolean }): ReactNode {
  return (
    <Switch>
      <Route path={CHAT_ROUTE} component={ChatPage} />
      <Route path="/sharing" component={SharingPage} />
      <Route path="/keys" component={KeysPage} />
      <Route path="/usage/*?" component={UsagePages} />
      <Route path="/cloud/*?" component={CloudPages} />
      {admin && <Route path="/people" component={PeoplePage} />}
      {admin && <Route path="/quotas" component={QuotasPage} />}
      {admin && <Route path="/quotas/*" component={ScopePage} />}
      {admin && <Route path="/engines" component={EnginesPage} />}
      <Route path="/login">
        <Redirect to="/" replace />
      </Route>
      <Route component={NotFoundPage} />
    </Switch>
  )
}

function Waiting() {
  return (
    <Center mih="50dvh">
      <Loader size="sm" aria-label="Loading" />
    </Center>
  )
}
