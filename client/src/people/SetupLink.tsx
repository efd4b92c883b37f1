import type { Invitation } from '../api/client'
import { CopyBox } from '../ui/CopyBox'
import { OncePanel } from '../ui/OncePanel'

interface Props {
  invitation: Invitation
  onClose: () => void
}

/** The one-time link, as the whole address somebody can open elsewhere. */
export function SetupLink({ invitation, onClose }: Props) {
  const { user, setup_path } = invitation
  const link = new URL(setup_path, window.location.origin).href
  return (
    <OncePanel
      title={`Set-up link for ${user.name}`}
      note={`Give it to ${user.name} alone: it works once, and whoever opens it first chooses the password.`}
      onClose={onClose}
    >
      <CopyBox text={link} caption="Link" copyLabel="Copy link" testId="setup-link" />
    </OncePanel>
  )
}
