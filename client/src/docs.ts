import SwaggerUI from 'swagger-ui-dist/swagger-ui-es-bundle.js'
import 'swagger-ui-dist/swagger-ui.css'
import './docs.css'

// Swagger UI keys its dark styles on this class; the page follows the system like the app does.
const dark = window.matchMedia('(prefers-color-scheme: dark)')
const follow = () => document.documentElement.classList.toggle('dark-mode', dark.matches)
dark.addEventListener('change', follow)
follow()

SwaggerUI({
  url: '/schema/openapi.json',
  dom_id: '#docs',
  validatorUrl: null,
  defaultModelsExpandDepth: 0,
})
