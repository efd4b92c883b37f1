import { Link, useLocation } from 'wouter'
import classes from './ui.module.css'

interface Props {
  /** What the pages have in common: "Usage". */
  label: string
  pages: readonly { path: string; title: string }[]
}

/** The pages of one subject, as links above them. */
export function PageTabs({ label, pages }: Props) {
  const [here] = useLocation()
  if (pages.length < 2) return null
  return (
    <nav className={classes.pageTabs} aria-label={label}>
      {pages.map(({ path, title }) => (
        <Link
          key={path}
          href={path}
          className={classes.pageTab}
          aria-current={here === path ? 'page' : undefined}
        >
          {title}
        </Link>
      ))}
    </nav>
  )
}
