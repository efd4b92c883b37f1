import { Route, Switch } from 'wouter'
import { useSession } from '../session/SessionProvider'
import NotFoundPage from '../ui/NotFoundPage'
import { Page } from '../ui/Page'
import { PageTabs } from '../ui/PageTabs'
import { BoxCloud } from './BoxCloud'
import { Left } from './Left'
import { LeftByEverybody } from './LeftByEverybody'
import { OwnCloud } from './OwnCloud'

const OWN_PAGES = [
  { path: '/cloud', title: 'Your rule' },
  { path: '/cloud/left', title: 'What left' },
]
const ADMIN_PAGES = [
  { path: '/cloud/box', title: 'The box' },
  { path: '/cloud/everybody', title: 'Everybody' },
]

const LEADS = {
  own: 'A request that would wait too long on a full box may be answered by somebody else’s model, if every rule lets it. Whatever is unclear stays here.',
  left: 'Every request of yours that left this box. It is written down before the first byte goes, and nothing is ever taken out.',
  box: 'Whether anything may leave, to whom, and how much at the most. People may be stricter for themselves, never looser. Only admins see this page.',
  everybody:
    'How much left, by day (UTC), person and provider, never what it was. Only admins see this page.',
}

/** Clouds: one's own rule and what left; for admins those of the box. */
export default function CloudPages() {
  const { state } = useSession()
  const isAdmin = state.status === 'known' && state.principal?.role === 'admin'
  const tabs = (
    <PageTabs label="Cloud" pages={isAdmin ? [...OWN_PAGES, ...ADMIN_PAGES] : OWN_PAGES} />
  )
  return (
    <Switch>
      <Route path="/cloud">
        <Page title="Cloud" lead={LEADS.own}>
          {tabs}
          <OwnCloud />
        </Page>
      </Route>
      <Route path="/cloud/left">
        <Page title="What left this box" lead={LEADS.left}>
          {tabs}
          <Left />
        </Page>
      </Route>
      {isAdmin && (
        <Route path="/cloud/box">
          <Page title="Cloud of the box" lead={LEADS.box}>
            {tabs}
            <BoxCloud />
          </Page>
        </Route>
      )}
      {isAdmin && (
        <Route path="/cloud/everybody">
          <Page title="What left, of everybody" lead={LEADS.everybody}>
            {tabs}
            <LeftByEverybody />
          </Page>
        </Route>
      )}
      <Route component={NotFoundPage} />
    </Switch>
  )
}
