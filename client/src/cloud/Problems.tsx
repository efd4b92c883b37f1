import classes from './cloud.module.css'

/** What the server says keeps requests here, or lets less leave than was meant. */
export function Problems({ of: problems }: { of: readonly string[] }) {
  if (problems.length === 0) return null
  return (
    <ul className={classes.problems} aria-label="What to know">
      {problems.map((problem) => (
        <li key={problem}>{problem}</li>
      ))}
    </ul>
  )
}
