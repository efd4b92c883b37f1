/** Calls to paste into a terminal or a file, with the key already in them. */
interface Call {
  base: string
  key: string
  model: string
}

const QUESTION = 'Say hello in five words.'

export function curlSnippet({ base, key, model }: Call): string {
  const body = JSON.stringify({ model, messages: [{ role: 'user', content: QUESTION }] })
  return [
    `curl ${base}/chat/completions \\`,
    `  -H "Authorization: Bearer ${key}" \\`,
    `  -H "Content-Type: application/json" \\`,
    `  -d ${shellQuoted(body)}`,
  ].join('\n')
}

export function pythonSnippet({ base, key, model }: Call): string {
  // A JSON string is a Python string too.
  const quoted = (text: string) => JSON.stringify(text)
  return [
    'from openai import OpenAI',
    '',
    'client = OpenAI(',
    `    base_url=${quoted(base)},`,
    `    api_key=${quoted(key)},`,
    ')',
    'answer = client.chat.completions.create(',
    `    model=${quoted(model)},`,
    `    messages=[{"role": "user", "content": ${quoted(QUESTION)}}],`,
    ')',
    'print(answer.choices[0].message.content)',
  ].join('\n')
}

/** In single quotes nothing is special to a shell but the single quote itself. */
function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}
