import { Button, Text } from '@mantine/core'
import { useState } from 'react'
import { api, value } from '../api/client'
import { ago, dateTime } from '../ui/format'
import { Loaded } from '../ui/Page'
import { useResource } from '../ui/useResource'
import { auditSentence } from './audit'
import classes from './quotas.module.css'

const loadAudit = () => value(api.GET('/api/admin/audit'))
const SHOWN_FIRST = 8

/** Who changed which rule, newest first. */
export function AuditLog() {
  const audit = useResource(loadAudit)
  const [all, setAll] = useState(false)
  return (
    <Loaded resource={audit}>
      {(rows) =>
        rows.length === 0 ? (
          <Text c="dimmed">No rule was changed yet.</Text>
        ) : (
          <div>
            <ul className={classes.audit}>
              {rows.slice(0, all ? undefined : SHOWN_FIRST).map((row) => (
                <li key={row.id} data-testid="audit-row">
                  {auditSentence(row)}
                  <time dateTime={row.at} title={dateTime(row.at)}>
                    , {ago(row.at)}
                  </time>
                </li>
              ))}
            </ul>
            {!all && rows.length > SHOWN_FIRST && (
              <Button size="xs" variant="default" mt={10} onClick={() => setAll(true)}>
                Show all {rows.length}
              </Button>
            )}
          </div>
        )
      }
    </Loaded>
  )
}
