import { Text } from '@mantine/core'
import { Link } from 'wouter'
import { Page } from './Page'

export default function NotFoundPage() {
  return (
    <Page title="There is no such page">
      <Text>
        The address may be mistyped. <Link href="/">Go to the chat</Link>
      </Text>
    </Page>
  )
}
