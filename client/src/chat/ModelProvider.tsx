import { useLocalStorage, useWindowEvent } from '@mantine/hooks'
import { createContext, type ReactNode, useContext, useMemo } from 'react'
import type { Problem } from '../api/errors'
import { listModels, type Model } from '../api/models'
import { withSize } from '../council/names'
import { useResource } from '../ui/useResource'

interface Models {
  models: Model[] | null
  problem: Problem | null
  reload: () => void
  /** The model the next question goes to; null while none is known. */
  chosen: Model | null
  choose: (id: string) => void
  /** How many are to answer in a council; empty where that is left to the server. */
  councilSize: string
  chooseCouncilSize: (size: string) => void
  /** The name that the next question asks for: the chosen model, or the council with its size. */
  asked: string | null
}

const Context = createContext<Models | null>(null)

/** The models of the box and the one this person last chose in this browser. */
export function ModelProvider({ children }: { children: ReactNode }) {
  const { data, problem, reload } = useResource(listModels)
  const [id, choose] = useLocalStorage({ key: 'wirthforge.model', defaultValue: '' })
  const [councilSize, chooseCouncilSize] = useLocalStorage({
    key: 'wirthforge.council-size',
    defaultValue: '',
  })
  // An admin may have changed the models while the page lay in a background tab.
  useWindowEvent('focus', reload)

  const models = useMemo<Models>(() => {
    // A model that is gone gives way to the first one, but stays remembered.
    const first = data?.find((model) => !model.council) ?? data?.[0]
    const chosen = data?.find((model) => model.id === id) ?? first ?? null
    const asked = chosen?.council ? withSize(chosen.id, councilSize) : (chosen?.id ?? null)
    const choice = { chosen, choose, councilSize, chooseCouncilSize, asked }
    return { models: data, problem, reload, ...choice }
  }, [data, problem, reload, id, choose, councilSize, chooseCouncilSize])
  return <Context value={models}>{children}</Context>
}

export function useModels(): Models {
  const models = useContext(Context)
  if (models === null) throw new Error('useModels needs a ModelProvider above it')
  return models
}
