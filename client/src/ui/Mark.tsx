/** The anvil: horn to the left, block to the right, one stroke of the hammer away from work. */
export function Mark({ size = 22 }: { size?: number }) {
  return (
    <svg viewBox="0 0 32 32" width={size} height={size} aria-hidden="true" focusable="false">
      <rect width="32" height="32" rx="7" fill="var(--wf-mark)" />
      <path
        fill="#fff"
        d="M4 10h24v5.200h-4.600a6 6 0 0 0-5.600 4v1.600l4.200 3.400V26H10v-1.800l4.200-3.400v-1.600C11.500 17 5 15.500 4 10z"
      />
    </svg>
  )
}
