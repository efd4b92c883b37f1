import { Badge, createTheme, type MantineColorsTuple, Modal, Tooltip } from '@mantine/core'

/** The one accent: iron at forging heat, dark enough at 7 for white text on it. */
const ember: MantineColorsTuple = [
  '#fff3ec',
  '#fde3d3',
  '#f9c5a6',
  '#f5a576',
  '#f2925c',
  '#e5763a',
  '#cf5a1d',
  '#b8430f',
  '#96360c',
  '#772b0a',
]

/** Greys with a little warmth, so that the accent does not stand alone. */
const gray: MantineColorsTuple = [
  '#f9f8f6',
  '#f3f1ed',
  '#e9e6e0',
  '#ded9d2',
  '#cdc7be',
  '#a39c92',
  '#857f77',
  '#4f4a44',
  '#38342f',
  '#23211e',
]

const dark: MantineColorsTuple = [
  '#e4e1dd',
  '#c4c0ba',
  '#a19c95',
  '#7d7872',
  '#4a4642',
  '#3a3734',
  '#2b2926',
  '#211f1d',
  '#1a1917',
  '#131211',
]

const raised = { backgroundColor: 'var(--wf-raised)' }

export const theme = createTheme({
  colors: { ember, gray, dark },
  primaryColor: 'ember',
  primaryShade: 7,
  defaultRadius: 'sm',
  cursorType: 'pointer',
  respectReducedMotion: true,
  fontFamily:
    'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif',
  fontFamilyMonospace:
    'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace',
  headings: { fontWeight: '650' },
  components: {
    Badge: Badge.extend({ defaultProps: { variant: 'light', size: 'sm', tt: 'none', fw: 600 } }),
    Modal: Modal.extend({
      defaultProps: {
        centered: true,
        styles: { content: raised, header: raised },
        overlayProps: { backgroundOpacity: 0.45 },
        closeButtonProps: { 'aria-label': 'Close' },
      },
    }),
    Tooltip: Tooltip.extend({ defaultProps: { openDelay: 400, fz: 'xs' } }),
  },
})
