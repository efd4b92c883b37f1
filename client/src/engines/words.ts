/** What is said about an engine: whether it answers, and what its conformance test found. */
import type { Conformance, Engine } from '../api/client'

export type Verdict = Conformance['stops']

export interface Finding {
  name: 'stops' | 'counts' | 'isolates' | 'continues'
  verdict: Verdict
  promise: string
  /** What follows where the engine does not keep the promise. */
  warning: string
}

const PROMISES: Omit<Finding, 'verdict'>[] = [
  {
    name: 'stops',
    promise: 'stops when its client goes',
    warning: 'It computes on when somebody stops an answer, so the slot is busy for nobody.',
  },
  {
    name: 'counts',
    promise: 'counts tokens',
    warning: 'It does not say how many tokens an answer had; each piece of it counts as one.',
  },
  {
    name: 'isolates',
    promise: 'keeps people’s caches apart',
    warning:
      'It uses cached prompts of one person for another: from the time to the first word, somebody could tell what others asked.',
  },
  {
    name: 'continues',
    promise: 'goes on with an answer that was cut off',
    warning:
      'Its answers cannot pause for somebody light, or move to it: some slots are kept free instead.',
  },
]

/** The promises. Where no test could tell about the caches, the adapter may know. */
export function findingsOf(found: Conformance | null, isolates: boolean | null): Finding[] {
  const told: Verdict = isolates === null ? 'unknown' : isolates ? 'yes' : 'no'
  return PROMISES.map((promise) => {
    const tested = found?.[promise.name] ?? 'unknown'
    const verdict = promise.name === 'isolates' && tested === 'unknown' ? told : tested
    return { ...promise, verdict }
  })
}

export const VERDICT_WORDS: Record<Verdict, string> = { yes: 'yes', no: 'no', unknown: 'not known' }

export interface State {
  word: string
  color: 'green' | 'red' | 'orange' | 'gray'
}

export function stateOf({ is_up, is_draining }: Engine): State {
  if (!is_up) return { word: 'away', color: 'red' }
  return is_draining ? { word: 'draining', color: 'orange' } : { word: 'up', color: 'green' }
}

/** What is unusual about the engine, in sentences. */
export function remarksOf({ is_up, is_draining, breaker, in_use, reason }: Engine): string[] {
  const remarks: string[] = []
  if (!is_up) remarks.push(reason ?? 'It has not answered yet.')
  if (is_draining) {
    remarks.push(
      in_use === 0
        ? 'It takes no new requests, and nothing runs on it: it can be switched off or removed.'
        : 'It takes no new requests; those that run on it go on to their end.',
    )
  }
  if (breaker === 'open') remarks.push('It rests after several failures in a row.')
  if (breaker === 'half-open') remarks.push('After several failures, one request tries it again.')
  return remarks
}

interface Kind {
  value: string
  label: string
  /** What its address looks like. */
  url: string
  /** What it takes for the server to load and unload its models; none where it cannot. */
  moves?: string
}

export const KINDS: [Kind, ...Kind[]] = [
  { value: 'openai', label: 'OpenAI-compatible', url: 'http://gpu-box:8000/v1' },
  {
    value: 'llama-server',
    label: 'llama-server',
    url: 'http://gpu-box:8080/v1',
    moves: 'llama-server must run as a router.',
  },
  {
    value: 'vllm',
    label: 'vLLM',
    url: 'http://gpu-box:8000/v1',
    moves: 'vLLM must run in sleep mode.',
  },
  { value: 'sglang', label: 'SGLang', url: 'http://gpu-box:30000/v1' },
  { value: 'tgi', label: 'TGI', url: 'http://gpu-box:8080' },
  {
    value: 'ollama',
    label: 'Ollama',
    url: 'http://gpu-box:11434',
    moves: 'Ollama then loads what is asked for, and unloads what is not.',
  },
]

export const movesOf = (kind: string) => KINDS.find(({ value }) => value === kind)?.moves

/** A kind of a plugin has only its name. */
export const kindLabel = (kind: string) => KINDS.find(({ value }) => value === kind)?.label ?? kind
