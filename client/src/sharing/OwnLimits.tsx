import { Text } from '@mantine/core'
import { api, value } from '../api/client'
import { BUDGETS, LIMITS, ruleWords, valueWords } from '../quotas/limits'
import { Loaded } from '../ui/Page'
import { useResource } from '../ui/useResource'
import classes from './sharing.module.css'

const loadQuota = () => value(api.GET('/api/quota'))

/** What is limited beside the budgets, and by which rule. Unlimited is everything that is not here. */
export function OwnLimits() {
  const quota = useResource(loadQuota)
  return (
    <Loaded resource={quota}>
      {({ limits }) => (
        <div>
          <dl className={classes.limits} data-testid="own-limits">
            {LIMITS.flatMap(({ name, label }) => {
              const limit = limits[name]
              if (limit === undefined || limit.value === null) return []
              if (BUDGETS.has(name)) return []
              return [
                <div key={name}>
                  <dt>{label}</dt>
                  <dd>
                    {valueWords(name, limit.value)}
                    <span>{ruleWords(limit.rule, true)}</span>
                  </dd>
                </div>,
              ]
            })}
          </dl>
          <Text size="xs" c="dimmed" mt={8}>
            Nothing else is limited.
          </Text>
        </div>
      )}
    </Loaded>
  )
}
