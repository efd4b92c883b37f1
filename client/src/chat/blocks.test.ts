import { describe, expect, test } from 'vitest'
import { splitBlocks } from './blocks'

const SAMPLE = `# Title

A paragraph
of two lines.

1. one

2. two
   - deep

   still in two

\`\`\`python
def f():

    return "\`\`"
\`\`\`

| a | b |
|---|---|
| 1 | 2 |

~~~~
~~~
not closed by three

~~~~
The end.
`

describe('splitBlocks', () => {
  test('cuts between paragraphs, lists, fences and tables', () => {
    expect(splitBlocks(SAMPLE).map((block) => block.trim().split('\n')[0])).toEqual([
      '# Title',
      'A paragraph',
      '1. one',
      '```python',
      '| a | b |',
      '~~~~',
    ])
  })

  test('loses nothing, whatever part of the text has arrived', () => {
    for (let length = 0; length <= SAMPLE.length; length++) {
      const part = SAMPLE.slice(0, length)
      expect(splitBlocks(part).join('')).toBe(part)
    }
  })

  test('changes at most the last two blocks when text is added', () => {
    for (let length = 1; length <= SAMPLE.length; length++) {
      const before = splitBlocks(SAMPLE.slice(0, length - 1)).slice(0, -2)
      expect(splitBlocks(SAMPLE.slice(0, length)).slice(0, before.length)).toEqual(before)
    }
  })

  test('keeps an open fence in one block however many blank lines it has', () => {
    expect(splitBlocks('```\na\n\nb\n\nc')).toHaveLength(1)
  })

  test('keeps the text whole when a definition ties it together', () => {
    expect(splitBlocks('See [it][1].\n\nMore.\n\n[1]: https://example.org')).toHaveLength(1)
  })
})
