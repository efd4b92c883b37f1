import { useLocalStorage, useWindowEvent } from '@mantine/hooks'
import { createContext, type ReactNode, useCallback, useContext, useMemo, useState } from 'react'
import type { Problem } from '../api/errors'
import { listModels, type Model } from '../api/models'
import { partsOf, withSize } from '../council/names'
import { useResource } from '../ui/useResource'

interface Models {
  models: Model[] | null
  problem: Problem | null
  reload: () => void
  /** The model the next question goes to; null while none is known. */
  chosen: Model | null
  choose: (id: string) => void
  /**
   * Takes the model that an opened conversation asked last (null: the one that was chosen); once for
   * each `serial`, so that whoever chooses another one keeps it.
   */
  adopt: (serial: number, model: string | null) => void
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
  const [id, remember] = useLocalStorage({ key: 'wirthforge.model', defaultValue: '' })
  const [size, rememberSize] = useLocalStorage({ key: 'wirthforge.council-size', defaultValue: '' })
  const [adopted, setAdopted] = useState<{ serial: number; model: string | null } | null>(null)
  const adopt = useCallback(
    (serial: number, model: string | null) =>
      setAdopted((old) => (old?.serial === serial ? old : { serial, model })),
    [],
  )
  // An admin may have changed the models while the page lay in a background tab.
  useWindowEvent('focus', reload)

  const models = useMemo<Models>(() => {
    const find = (name: string) => data?.find((model) => model.id === name)
    const own = adopted?.model == null ? null : partsOf(adopted.model, (name) => !!find(name))
    // A model that is gone gives way to the first one, but stays remembered.
    const first = data?.find((model) => !model.council) ?? data?.[0]
    const chosen = (own && find(own.id)) ?? find(id) ?? first ?? null
    const councilSize = own?.size ?? size
    const asked = chosen?.council ? withSize(chosen.id, councilSize) : (chosen?.id ?? null)
    const forget = () => setAdopted((old) => old && { ...old, model: null })
    const choose = (name: string) => {
      forget()
      remember(name)
    }
    const chooseCouncilSize = (wanted: string) => {
      if (own !== null) remember(own.id)
      forget()
      rememberSize(wanted)
    }
    const choice = { chosen, choose, adopt, councilSize, chooseCouncilSize, asked }
    return { models: data, problem, reload, ...choice }
  }, [data, problem, reload, id, remember, size, rememberSize, adopted, adopt])
  return <Context value={models}>{children}</Context>
}

export function useModels(): Models {
  const models = useContext(Context)
  if (models === null) throw new Error('useModels needs a ModelProvider above it')
  return models
}
