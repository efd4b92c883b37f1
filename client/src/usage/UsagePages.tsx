import { Route, Switch } from 'wouter'
import { useSession } from '../session/SessionProvider'
import NotFoundPage from '../ui/NotFoundPage'
import { Page } from '../ui/Page'
import { PageTabs } from '../ui/PageTabs'
import { Latest } from './Latest'
import { Prices } from './Prices'
import { ReportView } from './ReportView'

const PAGES = [
  { path: '/usage', title: 'Yours' },
  { path: '/usage/everybody', title: 'Everybody' },
  { path: '/usage/prices', title: 'Prices' },
]

const OWN = 'What you used. Only counts and times are kept here, not what was asked or answered.'
const ALL = 'What everybody used, never what they asked. Only admins see this page.'
const PRICES =
  'What a model costs, in whatever currency you mean. What was used before keeps the price of then. Only admins see this page.'

/** Usage: one's own, and for admins that of everybody and what it costs. */
export default function UsagePages() {
  const { state } = useSession()
  const isAdmin = state.status === 'known' && state.principal?.role === 'admin'
  const tabs = <PageTabs label="Usage" pages={isAdmin ? PAGES : []} />
  return (
    <Switch>
      <Route path="/usage">
        <Page title="Usage" lead={OWN}>
          {tabs}
          <ReportView key="own" everybody={false} />
          <Latest />
        </Page>
      </Route>
      {isAdmin && (
        <Route path="/usage/everybody">
          <Page title="Usage of everybody" lead={ALL}>
            {tabs}
            <ReportView key="all" everybody={true} />
          </Page>
        </Route>
      )}
      {isAdmin && (
        <Route path="/usage/prices">
          <Page title="Prices" lead={PRICES}>
            {tabs}
            <Prices />
          </Page>
        </Route>
      )}
      <Route component={NotFoundPage} />
    </Switch>
  )
}
