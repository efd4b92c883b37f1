import { Button, FileInput, Group, Modal, Stack, Text } from '@mantine/core'
import { useState } from 'react'
import { counted } from '../ui/format'
import { ProblemNote } from '../ui/ProblemNote'
import { useAction } from '../ui/useAction'
import { importConversations } from './calls'
import classes from './conversations.module.css'
import { useList } from './ListContext'
import type { ImportReport } from './wire'

/** Takes conversations in from a file that ChatGPT, Open WebUI or a box like this has written. */
export function ImportDialog({ onClose }: { onClose: () => void }) {
  const { store } = useList()
  const [file, setFile] = useState<File | null>(null)
  const [report, setReport] = useState<ImportReport | null>(null)
  const [take, { pending, problem }] = useAction(async () => {
    if (file === null) return
    setReport(await importConversations(file))
    void store.refresh()
  })
  return (
    <Modal opened onClose={onClose} title="Import conversations">
      <Stack gap="md">
        {report === null ? (
          <>
            <Text size="sm">
              From ChatGPT, the file <b>conversations.json</b> in the archive that it exports; from
              Open WebUI, the file of “Export chats”; or a JSON export of a box like this one.
            </Text>
            <FileInput
              label="File"
              placeholder="Choose a file"
              accept=".json,application/json"
              value={file}
              onChange={setFile}
            />
            <ProblemNote problem={problem} />
          </>
        ) : (
          <Report report={report} />
        )}
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={onClose}>
            {report === null ? 'Cancel' : 'Close'}
          </Button>
          {report === null && (
            <Button loading={pending} disabled={file === null} onClick={() => void take()}>
              Import
            </Button>
          )}
        </Group>
      </Stack>
    </Modal>
  )
}

function Report({ report: { imported, messages, problems } }: { report: ImportReport }) {
  return (
    <div role="status">
      <Text size="sm">
        {imported === 0
          ? 'Nothing was imported.'
          : `${counted(imported, 'conversation')} with ${counted(messages, 'message')} imported.`}
      </Text>
      {problems.length > 0 && (
        <>
          <Text size="sm" mt="sm">
            Not imported:
          </Text>
          <ul className={classes.problems}>
            {problems.map(({ title, why }, index) => (
              // biome-ignore lint/suspicious/noArrayIndexKey: the report does not change
              <li key={index}>
                <b>{title === '' ? 'Untitled' : title}</b>: {why}
              </li>
            ))}
          </ul>
        </>
      )}
    </div>
  )
}
