import { MantineProvider } from '@mantine/core'
import { renderToStaticMarkup } from 'react-dom/server'
import { describe, expect, test } from 'vitest'
import { Markdown } from './Markdown'

function html(text: string): Element {
  const page = document.createElement('div')
  page.innerHTML = renderToStaticMarkup(
    <MantineProvider>
      <Markdown text={text} growing={false} />
    </MantineProvider>,
  )
  return page
}

describe('Markdown', () => {
  test('shows raw HTML as text', () => {
    const page = html('<script>alert(1)</script>\n\nand <b onclick="x()">bold</b>')
    expect(page.querySelector('script, b')).toBeNull()
    expect(page.textContent).toContain('<script>alert(1)</script>')
  })

  test('opens links elsewhere and tells them nothing', () => {
    const link = html('[there](https://example.org/a)').querySelector('a')
    expect(link?.getAttribute('rel')).toBe('noopener noreferrer')
    expect(link?.getAttribute('target')).toBe('_blank')
  })

  test('drops addresses that would run code', () => {
    const page = html('[here](javascript:alert(1)) ![x](data:image/png;base64,AA==)')
    expect(page.querySelector('a')).toBeNull()
    expect(page.textContent).toContain('here')
  })

  test('shows a picture as a link, so that nothing is fetched', () => {
    const page = html('![a cat](https://example.org/cat.png)')
    expect(page.querySelector('img')).toBeNull()
    expect(page.querySelector('a')?.textContent).toBe('a cat')
  })

  test('colours code and names its language', () => {
    const page = html('```python\nprint("x")\n```')
    expect(page.querySelector('.hljs-string')?.textContent).toBe('"x"')
    expect(page.textContent).toContain('python')
  })

  test('draws tables', () => {
    expect(html('| a |\n|---|\n| 1 |').querySelectorAll('td')).toHaveLength(1)
  })
})
