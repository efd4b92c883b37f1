/** swagger-ui-dist ships no types; these are the options this client sets. */
declare module 'swagger-ui-dist/swagger-ui-es-bundle.js' {
  interface Options {
    url: string
    dom_id: string
    validatorUrl: null
    defaultModelsExpandDepth: number
  }
  export default function SwaggerUI(options: Options): unknown
}
