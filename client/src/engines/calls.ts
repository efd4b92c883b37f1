import { api, type EngineChange, type EngineSpec, value } from '../api/client'

const at = (name: string) => ({ params: { path: { name } } })

export const listEngines = () => value(api.GET('/api/admin/engines'))
export const listKinds = () => value(api.GET('/api/admin/engines/kinds'))
export const readMachine = () => value(api.GET('/api/hardware'))
export const addEngine = (body: EngineSpec) => value(api.POST('/api/admin/engines', { body }))
export const testEngine = (name: string) =>
  value(api.POST('/api/admin/engines/test/{name}', at(name)))
export const changeEngine = (name: string, body: EngineChange) =>
  value(api.PATCH('/api/admin/engines/{name}', { ...at(name), body }))
export const removeEngine = async (name: string) => {
  await value(api.DELETE('/api/admin/engines/{name}', at(name)))
}
